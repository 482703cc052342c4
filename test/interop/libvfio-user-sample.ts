// SPDX-License-Identifier: MIT
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../support/wait';

/** Folder of libvfio-user's built samples, from the environment; undefined when the tests against them are to be skipped. */
export const SAMPLES = process.env['VFIO_USER_SAMPLES'];

/** Why a sample cannot run here; undefined when it can. */
export function whyNoSample(name: string): string | undefined {
  if (SAMPLES === undefined) return 'VFIO_USER_SAMPLES is not set';
  return existsSync(join(SAMPLES, name)) ? undefined : `there is no ${name} in ${SAMPLES}`;
}

/** Whether listen(2) was called for a socket: its file is there since bind(2). The fourth column is then 00010000 (unix(7)). */
function listens(path: string): boolean {
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .some((line) => line.endsWith(` ${path}`) && line.split(/\s+/)[3] === '00010000');
}

/** A running sample of libvfio-user that listens at a socket. */
export class Sample {
  readonly path: string;
  /** What it has printed so far. */
  output = '';
  /** The sample has ended, and all that it printed is here. */
  readonly finished: Promise<unknown>;
  readonly #folder: string;
  readonly #child: ChildProcess;

  private constructor(name: string, options: readonly string[], folder: string) {
    this.#folder = folder;
    this.path = join(folder, 'socket');
    // Standard input stays open: `null` ends with it.
    this.#child = spawn(join(SAMPLES ?? '', name), [...options, this.path], { stdio: 'pipe' });
    this.finished = once(this.#child, 'close');
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on('data', (text: Buffer) => (this.output += text.toString()));
  }

  static start(name: string, ...options: string[]): Promise<Sample> {
    return Sample.#startIn(mkdtempSync(join(tmpdir(), 'libvfio-user-')), name, options);
  }

  static async #startIn(folder: string, name: string, options: readonly string[]): Promise<Sample> {
    const sample = new Sample(name, options, folder);
    await until(() => {
      if (sample.ended) throw new Error(`${name} does not listen: ${sample.output}`);
      return listens(sample.path);
    }, `${name} listens`);
    return sample;
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.finished;
  }

  /** Starts another sample where this one listened, which was killed. It leaves its socket behind; libvfio-user replaces none. */
  startAgain(name: string, ...options: string[]): Promise<Sample> {
    rmSync(this.path, { force: true });
    return Sample.#startIn(this.#folder, name, options);
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
