// SPDX-License-Identifier: MIT
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Folder of libvfio-user's built samples, from the environment; undefined when the tests against them are to be skipped. */
const SAMPLES = process.env['VFIO_USER_SAMPLES'];

/** Why a sample cannot run here; undefined when it can. */
export function whyNoSample(name: string): string | undefined {
  if (SAMPLES === undefined) return 'VFIO_USER_SAMPLES is not set';
  return existsSync(join(SAMPLES, name)) ? undefined : `there is no ${name} in ${SAMPLES}`;
}

/** A running sample of libvfio-user that listens at a socket. */
export class Sample {
  readonly path: string;
  /** What it has printed so far. */
  output = '';
  /** Exit code and signal, when it has ended. */
  readonly ended: Promise<[number | null, NodeJS.Signals | null]>;
  readonly #folder: string;
  readonly #child: ChildProcess;

  private constructor(name: string) {
    this.#folder = mkdtempSync(join(tmpdir(), 'libvfio-user-'));
    this.path = join(this.#folder, 'socket');
    this.#child = spawn(join(SAMPLES ?? '', name), ['-v', this.path], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.ended = new Promise((resolve) => {
      this.#child.once('exit', (code, signal) => {
        resolve([code, signal]);
      });
    });
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on('data', (text: Buffer) => (this.output += text.toString()));
  }

  static async start(name: string): Promise<Sample> {
    const sample = new Sample(name);
    while (!existsSync(sample.path)) {
      if (sample.#child.exitCode !== null) throw new Error(`${name} ended: ${sample.output}`);
      await sleep(10);
    }
    return sample;
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
