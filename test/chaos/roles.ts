// SPDX-License-Identifier: MIT
import { clientRole } from './client-role';
import type { Role } from './role';
import { serverRole } from './server-role';
import { storageRole } from './storage-role';

export const ROLE_NAMES = ['server', 'client', 'storage'] as const;
export type RoleName = (typeof ROLE_NAMES)[number];

export const ROLES: Readonly<Record<RoleName, Role>> = {
  server: serverRole,
  client: clientRole,
  storage: storageRole,
};
