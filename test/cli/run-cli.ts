// SPDX-License-Identifier: MIT
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { dist } from '../dist';
import { until } from '../support/wait';

/** The tool's program. */
export const MAIN = join(dist, 'cli', 'main.js');
const CLOCK_TICKS = 100;

/** How the tool ended, and what it said. */
export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The tool while it runs. */
export interface Running {
  readonly pid: number;
  readonly ended: Promise<Outcome>;
  kill(signal: NodeJS.Signals): void;
  /** Closes our end of its stdout. */
  closeStdout(): void;
  /** Waits until stdout has this text. */
  said(text: string): Promise<void>;
  /** Waits until it has used so much processor time, in seconds: then a benchmark is in its loop. */
  busy(seconds: number): Promise<void>;
}

/** A directory for sockets and files, which is also the tool's TMPDIR: processes and files of a test can be told from others. */
export class Scratch {
  readonly path = mkdtempSync(join(tmpdir(), 'cli-test-'));

  file(name: string): string {
    return join(this.path, name);
  }

  /** What is in it. */
  entries(): string[] {
    return readdirSync(this.path);
  }

  /** Processes that have it as TMPDIR. */
  processes(): number[] {
    return readdirSync('/proc')
      .map(Number)
      .filter((pid) => {
        try {
          return (
            pid > 0 &&
            readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`TMPDIR=${this.path}`)
          );
        } catch {
          return false;
        }
      });
  }

  /** Waits until nothing is left of what ran here. */
  async deserted(): Promise<void> {
    await until(
      () => this.entries().length === 0 && this.processes().length === 0,
      'the scratch directory is empty and unused',
    );
  }

  remove(): void {
    for (const pid of this.processes()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended meanwhile.
      }
    }
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Starts the tool. */
export function startCli(scratch: Scratch, ...args: string[]): Running {
  return startCliWith(scratch, 'ignore', ...args);
}

/** Starts the tool with something as descriptor 3. */
export function startCliWith(scratch: Scratch, third: 'ignore' | number, ...args: string[]): Running {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe', third],
    env: { ...process.env, NODE_DEBUG: '', TMPDIR: scratch.path },
  }) as ChildProcessByStdio<null, Readable, Readable>;
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = new Promise<Outcome>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status, signal) => {
      resolve({ status, signal, stdout, stderr });
    });
  });
  const pid = child.pid ?? 0;
  const alive = (): void => {
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`ended too early: ${stdout}${stderr}`);
  };
  return {
    pid,
    ended,
    kill: (signal) => child.kill(signal),
    closeStdout: () => {
      child.stdout.destroy();
    },
    said: (text) =>
      until(() => {
        if (stdout.includes(text)) return true;
        alive();
        return false;
      }, `it says '${text}'`),
    busy: (seconds) =>
      until(() => {
        alive();
        return processorSeconds(pid) >= seconds;
      }, `it has computed for ${seconds} s`),
  };
}

/** Runs the tool to its end. */
export function cli(scratch: Scratch, ...args: string[]): Promise<Outcome> {
  return startCli(scratch, ...args).ended;
}

/** An end with one line on stderr and nothing on stdout. */
export function failure(status: number, line: string): Outcome {
  return { status, signal: null, stdout: '', stderr: `vfio-user: ${line}\n` };
}

/** Fields utime and stime of proc_pid_stat(5), which follow the name in parentheses. */
function processorSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
}
