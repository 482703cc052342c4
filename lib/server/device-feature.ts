// SPDX-License-Identifier: MIT
import {
  Feature,
  decodeDeviceFeatureRequest,
  decodeMigrationState,
  encodeDeviceFeatureReply,
  encodeMigrationFeature,
  encodeMigrationState,
  migrationStateName,
  MigrationState,
  type DeviceFeatureRequest,
} from '../protocol';
import { CommandError, Errno, type CommandReply } from '../transport';
import type { ClientDirtyLog } from './dirty-log';
import type { Migration } from './migration';
import type { ModelCall } from './model-calls';

/** What can be done with each feature. Only a device that can migrate has them, since no other marks what it writes. */
const METHODS: Readonly<Record<number, { readonly get: boolean; readonly set: boolean }>> = {
  [Feature.migration]: { get: true, set: false },
  [Feature.migDeviceState]: { get: true, set: true },
  [Feature.dmaLoggingStart]: { get: false, set: true },
  [Feature.dmaLoggingStop]: { get: false, set: true },
  [Feature.dmaLoggingReport]: { get: true, set: false },
};

/**
 * Serves DEVICE_FEATURE.
 *
 * @param migration null when the device cannot migrate
 * @throws CommandError ENOTSUP for a feature, or a method of it, that the device does not have; EINVAL
 */
export async function answerDeviceFeature(
  payload: Uint8Array,
  migration: Migration | null,
  log: ClientDirtyLog,
  call: ModelCall,
): Promise<CommandReply> {
  if (migration === null) throw new CommandError(Errno.ENOTSUP, 'the device cannot migrate');
  const request = decodeDeviceFeatureRequest(payload);
  const { feature, get, set, probe, argsz } = request;
  const methods = METHODS[feature];
  if (methods === undefined || (get && !methods.get) || (set && !methods.set))
    throw new CommandError(Errno.ENOTSUP, `feature ${feature}, get ${String(get)}, set ${String(set)}`);
  // What is set or probed comes back as it is, so the room for it is checked before anything changes.
  if (!get || probe) checkRoom(request.data, argsz);
  const data = probe ? request.data : await serve(request, migration, log, call);
  checkRoom(data, argsz);
  return { payload: encodeDeviceFeatureReply({ feature, get, set, probe, data }) };
}

/** @throws CommandError EINVAL when the client has no room for the data of a reply */
export function checkRoom(data: Uint8Array, argsz: number): void {
  if (8 + data.byteLength > argsz)
    throw new CommandError(Errno.EINVAL, `a reply of ${8 + data.byteLength} bytes, argsz is ${argsz}`);
}

async function serve(
  { feature, get, data, argsz }: DeviceFeatureRequest,
  migration: Migration,
  log: ClientDirtyLog,
  call: ModelCall,
): Promise<Uint8Array> {
  switch (feature) {
    case Feature.migration:
      return encodeMigrationFeature(migration.flags);
    case Feature.migDeviceState:
      if (get) return encodeMigrationState(MigrationState[migration.state]);
      await migration.setState(migrationStateName(decodeMigrationState(data)), call);
      return data;
    case Feature.dmaLoggingStart:
      return log.start(data);
    case Feature.dmaLoggingStop:
      log.stop();
      return data;
    default:
      return log.report(data, argsz - 8);
  }
}
