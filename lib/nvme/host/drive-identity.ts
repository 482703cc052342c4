// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../errors';
import { currentLbaFormat, type IdentifyController, type IdentifyNamespace } from '../spec';
import type { NvmeAdmin } from './admin';

/** What a drive says of itself. */
export interface DriveIdentity {
  readonly controller: IdentifyController;
  /** The active namespaces by id; the first 1024. */
  readonly namespaces: ReadonlyMap<number, IdentifyNamespace>;
}

/** Asks a drive what it is. */
export async function identifyDrive(admin: NvmeAdmin): Promise<DriveIdentity> {
  const controller = await admin.identifyController();
  const namespaces = new Map<number, IdentifyNamespace>();
  for (const id of await admin.activeNamespaces()) namespaces.set(id, await admin.identifyNamespace(id));
  return { controller, namespaces };
}

/**
 * Checks that a controller that came back has the data of the one before, and takes what that one took. The firmware may be
 * another.
 *
 * @throws VfioUserError ERR_VFIO_USER_IDENTITY that tells what differs
 */
export function assertSameDrive(name: string, before: DriveIdentity, now: DriveIdentity): void {
  const differences = [
    ...differing(controllerFields(before.controller), controllerFields(now.controller)),
    ...differing(namespaceFields(before.namespaces), namespaceFields(now.namespaces)),
  ];
  if (differences.length === 0) return;
  throw new VfioUserError(
    'ERR_VFIO_USER_IDENTITY',
    `${name} came back as another drive: ${differences.join('; ')}. Attach to it anew if that is intended`,
  );
}

type Fields = ReadonlyMap<string, string>;

function controllerFields({ vid, ssvid, sn, mn, subnqn, mdts, sgls, vwc }: IdentifyController): Fields {
  const fields = { vid, ssvid, sn, mn, subnqn, mdts, sgls, vwc };
  return new Map(Object.entries(fields).map(([name, value]) => [name, String(value)]));
}

function namespaceFields(namespaces: DriveIdentity['namespaces']): Fields {
  return new Map(
    [...namespaces].map(([id, identify]) => {
      const { ds, ms } = currentLbaFormat(identify);
      const blocks = `${identify.nsze} blocks of ${2 ** ds} bytes, ${ms} of metadata`;
      return [`namespace ${id}`, `${blocks}, NGUID ${identify.nguid}`];
    }),
  );
}

function differing(before: Fields, now: Fields): string[] {
  return [...new Set([...before.keys(), ...now.keys()])]
    .filter((name) => before.get(name) !== now.get(name))
    .map((name) => `${name} is ${now.get(name) ?? 'missing'}, and was ${before.get(name) ?? 'missing'}`);
}
