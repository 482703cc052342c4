// SPDX-License-Identifier: MIT
import {
  MigrationState,
  migrationPath,
  migrationStateName,
  type MigrationStateName,
} from '../../lib/protocol';

const STATES = [
  'error',
  'stop',
  'running',
  'stopCopy',
  'resuming',
  'runningP2p',
  'preCopy',
  'preCopyP2p',
] as const;

// vfio-user, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: the table of states, 0 to 7.
test('names', () => {
  expect(Object.values(MigrationState).map((code) => migrationStateName(code))).toEqual(STATES);
});

// vfio-user, "Direct State Transitions" and "Complex State Transitions"; libvfio-user's lib/migration.c has the same as a
// table of next states. What is not here is not allowed.
const PATHS: [MigrationStateName, MigrationStateName, MigrationStateName[]][] = [
  ['running', 'stop', ['stop']],
  ['running', 'preCopy', ['preCopy']],
  ['running', 'stopCopy', ['stop', 'stopCopy']],
  ['running', 'resuming', ['stop', 'resuming']],
  ['stop', 'running', ['running']],
  ['stop', 'stopCopy', ['stopCopy']],
  ['stop', 'resuming', ['resuming']],
  ['stop', 'preCopy', ['running', 'preCopy']],
  ['stopCopy', 'stop', ['stop']],
  ['stopCopy', 'running', ['stop', 'running']],
  ['stopCopy', 'resuming', ['stop', 'resuming']],
  ['resuming', 'stop', ['stop']],
  ['resuming', 'running', ['stop', 'running']],
  ['resuming', 'stopCopy', ['stop', 'stopCopy']],
  ['resuming', 'preCopy', ['stop', 'running', 'preCopy']],
  ['preCopy', 'running', ['running']],
  ['preCopy', 'stopCopy', ['stopCopy']],
  ['preCopy', 'stop', ['running', 'stop']],
  ['preCopy', 'resuming', ['running', 'stop', 'resuming']],
];

test.each([true, false])('all transitions, PRE_COPY %p', (preCopy) => {
  for (const from of STATES) {
    for (const to of STATES) {
      const known = PATHS.find(([a, b]) => a === from && b === to)?.[2];
      const expected = from === to && from !== 'error' ? [] : known;
      const removed = !preCopy && expected?.includes('preCopy') === true;
      expect([from, to, migrationPath(from, to, preCopy)]).toEqual([
        from,
        to,
        removed ? undefined : expected,
      ]);
    }
  }
});
