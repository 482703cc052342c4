// SPDX-License-Identifier: MIT
import type { Role, RoleName } from './role';
import { nvmeControllerRole } from './nvme-controller-role';
import { serverRole } from './server-role';

export const ROLES: Readonly<Record<RoleName, Role>> = { server: serverRole, 'nvme-controller': nvmeControllerRole } as Record<RoleName, Role>;
