// SPDX-License-Identifier: MIT
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VfioUserError } from '../errors';
import type { EmbeddedReady } from './embedded-server';

/** An NVMe controller in a process of our own, with memory behind it. */
export interface EmbeddedEndpoint extends AsyncDisposable {
  /** Path of its socket. */
  readonly path: string;
  readonly pid: number;
  /** Ends the process and waits until nothing of it is left. Idempotent. */
  close(): Promise<void>;
}

const START_MILLISECONDS = 10_000;
const STOP_MILLISECONDS = 3_000;
/** Most of what the process says on stderr that is kept for messages, in characters. */
const KEPT_CHARACTERS = 4096;

/**
 * Starts an emulated NVMe controller in a child process, so that client and device each have a core, as in real life.
 * It ends with this process, whatever ends this one.
 *
 * @param size of the namespace in bytes, a multiple of 512
 * @throws VfioUserError ERR_VFIO_USER_CONNECT when it does not start, with what it said
 */
export async function startEmbeddedEndpoint(size: number, signal: AbortSignal): Promise<EmbeddedEndpoint> {
  signal.throwIfAborted();
  const child = fork(join(__dirname, 'embedded-server.js'), [String(size)], {
    execArgv: [],
    // A process group of its own: Ctrl-C must reach this process only, which shuts the controller down first.
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-KEPT_CHARACTERS);
  });
  let directory: string | undefined;
  const close = async (): Promise<void> => {
    await stop(child);
    // The process does so itself, unless it was killed.
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  };
  try {
    const ready = await readiness(child, signal, () => said);
    directory = ready.directory;
    return { path: ready.socket, pid: child.pid ?? 0, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

function readiness(child: ChildProcess, signal: AbortSignal, said: () => string): Promise<EmbeddedReady> {
  return new Promise<EmbeddedReady>((resolve, reject) => {
    const fail = (what: string): void => {
      const last = (said().trim().split('\n').at(-1) ?? '').replace(/^vfio-user: /, '');
      const text = `the embedded endpoint ${what}${last === '' ? '' : `; it said: ${last}`}`;
      reject(new VfioUserError('ERR_VFIO_USER_CONNECT', text));
    };
    const timer = setTimeout(() => {
      fail(`was not ready within ${START_MILLISECONDS / 1000} s`);
    }, START_MILLISECONDS);
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    child.once('message', (ready: EmbeddedReady) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      resolve(ready);
    });
    child.once('error', (error) => {
      clearTimeout(timer);
      fail(`could not be started (${error.message})`);
    });
    // 'close' and not 'exit': by then all that it said has arrived.
    child.once('close', (code, killer) => {
      clearTimeout(timer);
      fail(killer === null ? `ended with status ${String(code)} at its start` : `was killed by ${killer}`);
    });
  });
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.pid === undefined) return;
  if (child.connected) child.disconnect();
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  const deadline = new AbortController();
  const expired = sleep(STOP_MILLISECONDS, 'expired', { signal: deadline.signal }).catch(() => 'cancelled');
  if ((await Promise.race([exited, expired])) === 'expired') {
    child.kill('SIGKILL');
    await exited;
  }
  deadline.abort();
}
