// SPDX-License-Identifier: MIT
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { adopt } from './children';
import type { Footprint } from './footprint';

const MAIN = join(dirname(require.resolve('vfio-user/package.json')), 'dist/cli/main.js');
/** Last characters of what a server wrote to stderr, for when it ends by itself. */
const MOST_COMPLAINTS = 2000;
/** What the command line tool says when it listens. */
const READY = 'Ctrl-C ends it.';
/** Keeps the young generation of the heap, which grows with time, small: so growth is a leak. */
const NODE_OPTIONS = ['--expose-gc', '--max-semi-space-size=1', '--require', join(__dirname, 'probe.js')];

/** `vfio-user serve nvme` in a process of its own. */
export class ServerProcess {
  /** When it was ready to be connected to, by `performance.now()`. */
  readonly readyAt: number;
  readonly path: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #complaints: { text: string };

  private constructor(
    path: string,
    child: ChildProcess,
    ended: Promise<unknown>,
    complaints: { text: string },
  ) {
    this.path = path;
    this.#child = child;
    this.#ended = ended;
    this.#complaints = complaints;
    this.readyAt = performance.now();
  }

  /**
   * @param path of the socket
   * @param options of `serve nvme`, but `--socket`
   * @param environment variables beside those of this process
   * @throws Error when it ends before it listens
   */
  static async start(
    path: string,
    options: readonly string[],
    environment: Record<string, string> = {},
  ): Promise<ServerProcess> {
    const args = [...NODE_OPTIONS, MAIN, 'serve', 'nvme', '--socket', path, ...options];
    const child = spawn(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...process.env, ...environment },
      // Ctrl-C is for this process, which ends it when its work is done.
      detached: true,
    });
    const complaints = { text: '' };
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaints.text = (complaints.text + text).slice(-MOST_COMPLAINTS);
    });
    const ended = once(child, 'exit');
    adopt(child);
    let said = '';
    await new Promise<void>((resolve, reject) => {
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (said.includes(READY)) resolve();
      });
      child.once('exit', () => {
        reject(new Error(`The server ended before it listened: ${complaints.text}`));
      });
    });
    return new ServerProcess(path, child, ended, complaints);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Why it is not running although nobody ended it; undefined when it is. */
  get ending(): string | undefined {
    const { exitCode, signalCode } = this.#child;
    if (exitCode === null && signalCode === null) return undefined;
    return `the server ended with ${String(exitCode ?? signalCode)}: ${this.#complaints.text}`;
  }

  /** What it has written to stderr, the last of it. */
  get complaints(): string {
    return this.#complaints.text;
  }

  /** Sends a signal. */
  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child.kill(name);
  }

  /** Ends it, and waits until it has ended. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.#child.kill(signal);
    await this.#ended;
  }

  /** How many descriptors it may have. */
  descriptorLimit(): number {
    const limits = readFileSync(`/proc/${this.pid}/limits`, 'utf8');
    return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1]);
  }

  /** Sets how many descriptors it may have (prlimit(1)). False where that cannot be done. */
  limitDescriptors(count: number): boolean {
    return spawnSync('prlimit', ['--pid', String(this.pid), `--nofile=${count}:`]).status === 0;
  }

  /** What it holds, after a collection of garbage. */
  async footprint(): Promise<Footprint> {
    const answer = once(this.#child, 'message') as Promise<[Footprint]>;
    this.#child.send('footprint');
    return (await answer)[0];
  }
}
