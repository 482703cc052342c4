// SPDX-License-Identifier: MIT
import type { Role, RoleName } from './role';
import { clientRole } from './client-role';
import { nvmeControllerRole } from './nvme-controller-role';
import { serverRole } from './server-role';

export const ROLES: Readonly<Record<RoleName, Role>> = { server: serverRole, client: clientRole, 'nvme-controller': nvmeControllerRole } as Record<RoleName, Role>;
