// SPDX-License-Identifier: MIT
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { ChildReport, ChildTask } from './child-messages';

/** How a child ended. */
export type Outcome =
  | Extract<ChildReport, { kind: 'done' }>
  | { readonly kind: 'failure'; readonly session: number; readonly text: string };

/** Without a sign of life for so long, in milliseconds, a child hangs. Its own waits are shorter, and tell more. */
const SILENCE = 90_000;
const LOOK = 1000;
/** The package's root, from build/fuzz/test/fuzz. */
const ROOT = resolve(__dirname, '../../../..');

/**
 * Runs a task in a process of its own, until it ends, crashes or hangs.
 *
 * @param onLook called every second with the number of messages so far
 */
export async function supervise(
  task: ChildTask,
  onLook: (messages: number) => void = () => undefined,
): Promise<Outcome> {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-fuzz-'));
  const file = openSync(join(directory, 'progress'), 'w+');
  const progress = new Float64Array(3);
  writeSync(file, new Uint8Array(progress.buffer));
  const child = spawn(process.execPath, ['--expose-gc', join(__dirname, 'child.js')], {
    stdio: ['ignore', 'inherit', 'pipe', 'ipc', file],
    // JSON knows no Infinity.
    serialization: 'advanced',
    // node-gyp-build takes the addon from there; a sanitized one is elsewhere.
    env: { VFIO_USER_PREBUILD: ROOT, ...process.env },
  });
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (part: string) => (stderr = (stderr + part).slice(-20_000)));
  let told: ChildReport | undefined;
  child.on('message', (message) => (told = message as ChildReport));
  child.send(task);
  const state = { silent: false };
  let lastSign = -1;
  let since = performance.now();
  const timer = setInterval(() => {
    readSync(file, new Uint8Array(progress.buffer), 0, 24, 0);
    onLook(progress[1] as number);
    if (progress[2] !== lastSign) {
      lastSign = progress[2] as number;
      since = performance.now();
    } else if (performance.now() - since > SILENCE) {
      state.silent = true;
      child.kill('SIGKILL');
    }
  }, LOOK);
  try {
    const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
    readSync(file, new Uint8Array(progress.buffer), 0, 24, 0);
    const session = progress[0] as number;
    if (state.silent)
      return { kind: 'failure', session, text: `hangs: no sign of life for ${SILENCE / 1000} s\n${stderr}` };
    if (told !== undefined && (told.kind === 'failure' || code === 0)) return told;
    return { kind: 'failure', session, text: `crashes: exit code ${code}, signal ${signal}\n${stderr}` };
  } finally {
    clearInterval(timer);
    child.kill('SIGKILL');
    closeSync(file);
    rmSync(directory, { recursive: true });
  }
}
