// SPDX-License-Identifier: MIT
import type { Role, RoleName } from './role';
import { serverRole } from './server-role';

export const ROLES: Readonly<Record<RoleName, Role>> = { server: serverRole } as Record<RoleName, Role>;
