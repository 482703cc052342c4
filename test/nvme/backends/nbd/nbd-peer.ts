// SPDX-License-Identifier: MIT
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../../../support/wait';

/** The path of a program: that of an environment variable, or what is found; null when there is none. */
export function program(variable: string, name: string): string | null {
  const path = process.env[variable] ?? spawnSync('which', [name], { encoding: 'utf8' }).stdout.trim();
  return path === '' ? null : path;
}

export const NBDKIT = program('NBDKIT', 'nbdkit');
export const QEMU_NBD = program('QEMU_NBD', 'qemu-nbd');

/** Tests that need nbdkit; skipped, which their report tells, where it is not installed. */
export const testWithNbdkit = NBDKIT === null ? test.skip : test;
if (NBDKIT === null) console.warn('tests against nbdkit are skipped: it is not installed');

/** A server of somebody else, in a process, with a folder for its files. */
export class NbdPeer {
  readonly folder = mkdtempSync(join(tmpdir(), 'nbd-'));
  /** Where it listens, unless it is told otherwise. */
  readonly socket = join(this.folder, 'socket');
  readonly uri = `nbd+unix:///?socket=${this.socket}`;
  #child: ChildProcess | undefined;

  file(name: string): string {
    return join(this.folder, name);
  }

  /** Starts nbdkit or qemu-nbd, and waits until it listens. */
  async start(path: string | null, args: readonly string[]): Promise<void> {
    if (path === null) throw new Error('the program is not installed');
    // Written when the server listens.
    const ready = this.file('pid');
    for (const file of [this.socket, ready]) rmSync(file, { force: true });
    this.#child = spawn(path, [path === NBDKIT ? '--pidfile' : '--pid-file', ready, ...args], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    await until(() => existsSync(ready) && statSync(ready).size > 0, `the pid file of ${path}`);
  }

  nbdkit(...args: string[]): Promise<void> {
    return this.start(NBDKIT, ['-f', '-U', this.socket, ...args]);
  }

  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }

  /** Stops it, and removes its folder. */
  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
