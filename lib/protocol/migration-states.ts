// SPDX-License-Identifier: MIT
import { MigrationState, type MigrationStateCode, type MigrationStateName } from './constants';

/** Direct transitions (vfio-user, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, "Direct State Transitions"). P2P states are not used. */
const ARCS: Readonly<Partial<Record<MigrationStateName, readonly MigrationStateName[]>>> = {
  running: ['stop', 'preCopy'],
  stop: ['running', 'stopCopy', 'resuming'],
  stopCopy: ['stop'],
  resuming: ['stop'],
  preCopy: ['running', 'stopCopy'],
};

const NAMES = new Map<MigrationStateCode, MigrationStateName>(
  (Object.keys(MigrationState) as MigrationStateName[]).map((name) => [MigrationState[name], name]),
);

/** The name of a state that came from `decodeMigrationState`. */
export function migrationStateName(code: MigrationStateCode): MigrationStateName {
  return NAMES.get(code) ?? 'error';
}

/** Whether migration data can be read in a state: the "saving group". */
function isSaving(state: MigrationStateName): boolean {
  return state === 'preCopy' || state === 'stopCopy';
}

/**
 * The states that a device passes on its way to another state (vfio-user, "Complex State Transitions"): the shortest
 * path, without PRE_COPY and STOP_COPY between its ends.
 *
 * @param preCopy whether the device supports PRE_COPY
 * @returns the states after `from`, `to` the last; empty when they are the same; undefined when there is no legal way:
 *   to or from `error`, from `stopCopy` to `preCopy`, and to the P2P states
 */
export function migrationPath(
  from: MigrationStateName,
  to: MigrationStateName,
  preCopy: boolean,
): MigrationStateName[] | undefined {
  if (from === 'error' || to === 'error') return undefined;
  if (from === to) return [];
  if (from === 'stopCopy' && to === 'preCopy') return undefined;
  const seen = new Set<MigrationStateName>([from]);
  let paths: MigrationStateName[][] = [[from]];
  while (paths.length > 0) {
    const longer: MigrationStateName[][] = [];
    for (const path of paths) {
      const last = path.at(-1) ?? from;
      if (path.length > 1 && isSaving(last)) continue;
      for (const next of ARCS[last] ?? []) {
        if (seen.has(next) || (next === 'preCopy' && !preCopy)) continue;
        if (next === to) return [...path.slice(1), next];
        seen.add(next);
        longer.push([...path, next]);
      }
    }
    paths = longer;
  }
  return undefined;
}
