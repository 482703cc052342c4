// SPDX-License-Identifier: MIT
import { clientRole } from './client/role';
import { nvmeControllerRole } from './nvme-controller/role';
import { nvmeHostRole } from './nvme-host/role';
import type { Role, RoleName } from './role';
import { serverRole } from './server/role';

export const ROLES: Readonly<Record<RoleName, Role>> = {
  server: serverRole,
  client: clientRole,
  'nvme-host': nvmeHostRole,
  'nvme-controller': nvmeControllerRole,
};
