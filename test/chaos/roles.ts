// SPDX-License-Identifier: MIT
import type { Role } from './role';
import { storageRole } from './storage-role';

export const ROLE_NAMES = ['storage'] as const;
export type RoleName = (typeof ROLE_NAMES)[number];

export const ROLES: Readonly<Record<RoleName, Role>> = { storage: storageRole };
