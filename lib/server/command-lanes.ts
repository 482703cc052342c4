// SPDX-License-Identifier: MIT
import { Command, commandRow } from '../protocol';
import type { Lane } from '../transport';
import type { FunctionState } from './function-state';

type Regions = FunctionState['regions'];

/** Commands in which the device model has no part overlap with each other and with all accesses. */
const APART: Lane = { key: 'apart', shared: true };
/** One that disables thousands of vectors takes its time; the next one must not overtake it. */
const INTERRUPTS: Lane = { key: 'interrupts', shared: false };

/** Accesses of one region are done one at a time, but reads overlap in a region that says so. */
export function regionLane(regions: Regions, index: number, write: boolean): Lane {
  return { key: index, shared: !write && regions.get(index)?.concurrent === true };
}

/** The lane that the row of a command asks for (vfio-user, "Command Concurrency"); null for a barrier. */
export function commandLane(regions: Regions, command: number, payload: Uint8Array): Lane | null {
  switch (commandRow(command).overlap) {
    case 'none':
      return null;
    case 'all':
      return command === Command.deviceSetIrqs ? INTERRUPTS : APART;
    case 'region': {
      // Too short to be one: it is refused when its turn comes.
      if (payload.byteLength < 16) return APART;
      const index = new DataView(payload.buffer, payload.byteOffset).getUint32(8, true);
      return regionLane(regions, index, command !== Command.regionRead);
    }
  }
}
