// SPDX-License-Identifier: MIT
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { sharedNow, type ClientOrder, type ClientReport, type ClientTask } from './client-messages';
import { adopt } from './children';
import { PATIENCE } from './drive';

/** A client in a process of its own, which is started before it is needed. */
export class ClientProcess {
  readonly #child: ChildProcess;
  readonly #exit: Promise<unknown>;
  readonly #onMistake: (report: Extract<ClientReport, { kind: 'mistake' }>) => void;
  readonly #waiting: ((report: ClientReport | undefined) => void)[] = [];
  readonly #reports: ClientReport[] = [];
  /** When it was killed, by the shared clock; 0 before. */
  killedAt = 0;
  #ended = false;
  isReady = false;
  /** Resolves when it can begin at once. */
  readonly ready: Promise<unknown>;

  constructor(onMistake: (report: Extract<ClientReport, { kind: 'mistake' }>) => void) {
    this.#onMistake = onMistake;
    this.#child = spawn(process.execPath, [join(__dirname, 'client-program.js')], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      detached: true,
    });
    adopt(this.#child);
    this.#exit = once(this.#child, 'exit').then(() => {
      this.#ended = true;
      for (const waiting of this.#waiting.splice(0)) waiting(undefined);
    });
    this.#child.on('message', (report: ClientReport) => {
      if (report.kind === 'mistake') {
        this.#onMistake(report);
        return;
      }
      if (report.kind === 'ready') return;
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#reports.push(report);
      else waiting(report);
    });
    this.ready = once(this.#child, 'message').then(() => {
      this.isReady = true;
    });
    // It may be killed while an order is on its way.
    this.#child.on('error', () => undefined);
  }

  get ended(): boolean {
    return this.#ended;
  }

  go(task: ClientTask): void {
    this.order({ do: 'go', task });
  }

  order(order: ClientOrder): void {
    this.#child.send(order, () => undefined);
  }

  /**
   * The next report; undefined when it ended without.
   *
   * @throws Error when there is none for long
   */
  async next(what: string): Promise<ClientReport | undefined> {
    const report = this.#reports.shift();
    if (report !== undefined || this.#ended) return report;
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.push(resolve);
        timer = setTimeout(() => {
          reject(new Error(`${what}: nothing came within ${PATIENCE} ms`));
        }, PATIENCE);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child.kill(name);
  }

  async kill(): Promise<void> {
    this.killedAt = sharedNow();
    this.#child.kill('SIGKILL');
    await this.#exit;
  }

  /** Waits until it has ended by itself. Its exit code. */
  async exit(): Promise<number | null> {
    await this.#exit;
    return this.#child.exitCode;
  }
}
