// SPDX-License-Identifier: MIT
/** `npm run chaos` and `npm run soak` in a short form, in processes of their own. Long runs are for people. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hasCompiler } from '../support/preloaded-library';
import { transpiled } from '../support/transpiled';

const built = transpiled('test/chaos', 'test/support', 'lib/bench', 'lib');
const MINUTE = 60_000;

let scratch: string;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'chaos-test-'));
});
afterEach(() => {
  rmSync(scratch, { recursive: true, force: true });
});

function run(
  script: 'main' | 'soak',
  ...args: string[]
): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--expose-gc', '--max-semi-space-size=1', join(built, 'test/chaos', `${script}.js`), ...args],
    { encoding: 'utf8', timeout: 3 * MINUTE, env: { ...process.env, NODE_DEBUG: '', TMPDIR: scratch } },
  );
  return { status, stdout, stderr };
}

const chaos = (...args: string[]): ReturnType<typeof run> => run('main', ...args);
const NOTHING_FOUND = /that were lost +0\n.*lies +0\n.*wrongly +0\n.*leaks +0\n.*otherwise +0\n/;

test.each([
  ['server', 'kill 1', 'twice 1', 'restart 1', 'stop 1'],
  ['client', 'kill 1', 'reset 1', 'stop 1', 'silent 1', 'slow 1', 'half 1', 'descriptors 1', 'shrunk 1'],
])(
  'role %s: a round of every fault',
  (role, ...faults) => {
    const { status, stdout, stderr } = chaos('--role', role, '--rounds', '1', '--seed', '1');
    expect({ status, stderr, stdout: NOTHING_FOUND.test(stdout) ? 'nothing found' : stdout }).toEqual({
      status: 0,
      stderr: '',
      stdout: 'nothing found',
    });
    for (const fault of faults) expect(stdout).toContain(fault);
    expect(readdirSync(scratch)).toEqual([]);
  },
  4 * MINUTE,
);

const withCompiler = hasCompiler ? describe : describe.skip;
withCompiler('role storage', () => {
  test(
    'a round of every fault',
    () => {
      const { status, stdout, stderr } = chaos('--role', 'storage', '--rounds', '1', '--seed', '1');
      expect({ status, stderr, stdout: NOTHING_FOUND.test(stdout) ? 'nothing found' : stdout }).toEqual({
        status: 0,
        stderr: '',
        stdout: 'nothing found',
      });
      const faults = ['bad-write', 'bad-read', 'failed-flush', 'shrunk', 'power', 'kill', 'slow', 'short'];
      for (const fault of faults) expect(stdout).toContain(`${fault} 1`);
      expect(stdout).toMatch(/full 1|note +full/);
      expect(readdirSync(scratch)).toEqual([]);
    },
    4 * MINUTE,
  );

  test.each([
    ['write', 'kill', 'that were lost'],
    ['flush', 'power', 'that were lost'],
    ['flush', 'failed-flush', 'that were lies'],
  ])(
    'storage that lies about each %s is found out by %s',
    (lie, faults, found) => {
      const { status, stdout } = chaos(
        ...['--role', 'storage', '--rounds', '3', '--seed', '1', '--faults', faults, '--lie', lie],
      );
      expect(stdout).toMatch(new RegExp(`${found} +[1-9]`));
      expect(status).toBe(1);
    },
    4 * MINUTE,
  );
});

test('the plan is told without a fault', () => {
  const args = ['--role', 'client', '--rounds', '2', '--seed', '9', '--plan'];
  const { status, stdout } = chaos(...args);
  expect(status).toBe(0);
  expect(stdout.trimEnd().split('\n')).toHaveLength(16);
  expect(chaos(...args).stdout).toBe(stdout);
});

test.each([
  ['--help', 0, 'npm run chaos -- --role ROLE'],
  ['--role nobody', 2, '--role is one of server, client, storage, not nobody'],
  ['', 2, '--role is one of server, client, storage\n'],
  ['--role client --faults kill,flood', 2, '--faults of role client are kill, reset, stop'],
  ['--role client --rounds 0', 2, '--rounds is a whole number from 1 to 1000000, not 0'],
  ['--role client --seed x', 2, '--seed is a whole number from 0 to 4294967295, not x'],
  ['--role client --lie write', 2, '--lie goes with --role storage'],
  ['--role storage --lie much', 2, '--lie is write or flush, not much'],
  ['--role client --round 1', 2, "Unknown option '--round'"],
])('chaos %s', (args, expected, text) => {
  const { status, stdout, stderr } = chaos(...args.split(' ').filter((arg) => arg !== ''));
  expect([status, expected === 0 ? stdout : stderr]).toEqual([expected, expect.stringContaining(text)]);
});

test(
  'soak: samples, a verdict, and nothing left behind',
  () => {
    const { status, stdout, stderr } = run('soak', '--minutes', '0.05', '--interval', '1', '--seed', '1');
    expect({ status, stderr, stdout: stdout.includes('flat, and nothing lost') ? 'flat' : stdout }).toEqual({
      status: 0,
      stderr: '',
      stdout: 'flat',
    });
    expect(readdirSync(scratch)).toEqual([]);
  },
  2 * MINUTE,
);

test.each([
  ['--help', 0, 'npm run soak'],
  ['--minutes none', 2, '--minutes is a number above 0, not none'],
  ['--interval 0', 2, '--interval is a whole number from 1 to 3600, not 0'],
  ['--hours 1', 2, "Unknown option '--hours'"],
])('soak %s', (args, expected, text) => {
  const { status, stdout, stderr } = run('soak', ...args.split(' '));
  expect([status, expected === 0 ? stdout : stderr]).toEqual([expected, expect.stringContaining(text)]);
});
