// SPDX-License-Identifier: MIT
import { asError } from '../errors';
import { closeFd, duplicateFd } from '../native';
import type { ControllerRestart, CreatedQueuePair, NvmeController } from '../nvme/host';
import type { DeviceReconnected } from '../pci';
import type { Gap } from './gap';
import type { QueueLocation, SharedFile } from './job';
import { Wish } from './job-state';
import { OutageLog } from './outage-log';
import { JobsAtWork } from './jobs-at-work';
import type { PlannedJob } from './plan';

type Resolve = (location: QueueLocation | null) => void;

/**
 * Gives the jobs of a controller their queue pairs: at the beginning, and again each time that the controller has come back. In
 * between the jobs pause, each when it comes to look; only when all have left their queues is that memory used for new ones.
 */
export class QueueSupply {
  /** Why the controller is gone for good; undefined while it is not. */
  lost: Error | undefined;
  readonly #controller: NvmeController;
  readonly #onLost: () => void;
  readonly #outages = new OutageLog();
  /** Has the controller say that it has failed, which it does in a register alone. */
  readonly #watch: ReturnType<NvmeController['watchPairs']>;
  /** Jobs that have not ended. */
  readonly #running = new Set<PlannedJob>();
  readonly #pairs = new Map<PlannedJob, CreatedQueuePair>();
  /** The doorbells, by a descriptor of our own: the device closes its descriptor before the threads of the jobs know. */
  #doorbells: SharedFile | null = null;
  /** Jobs that have paused, and wait for a queue pair. */
  readonly #waiting = new Map<PlannedJob, Resolve>();
  #up = true;
  #supplying = false;
  /** Number of connections that were lost. */
  #losses = 0;
  readonly #onDisconnect = (): void => {
    this.#losses++;
    this.#up = false;
    this.#outages.lost(this.#running);
    for (const { state } of this.#running) state.paused = true;
    this.#releaseStopped();
  };
  readonly #onConnected = ({ gap }: DeviceReconnected): void => {
    this.#outages.back(gap);
  };
  readonly #onReconnect = ({ gap }: ControllerRestart): void => {
    // Without another connection, where the controller has failed and was reset.
    this.#outages.back(gap);
    this.#up = true;
    void this.#supply();
  };
  readonly #onClose = (error: Error | null): void => {
    this.#fail(error ?? new Error('closed by this side'));
  };

  /** @param onLost called when the controller is gone for good, after its jobs were told so */
  constructor(controller: NvmeController, onLost: () => void) {
    this.#controller = controller;
    this.#onLost = onLost;
    this.#watch = controller.watchPairs(new JobsAtWork(this.#running));
    controller.on('disconnect', this.#onDisconnect);
    controller.device.on('reconnect', this.#onConnected);
    controller.on('reconnect', this.#onReconnect);
    controller.on('close', this.#onClose);
  }

  /**
   * Creates the queue pairs of jobs that are to run.
   *
   * @throws as `NvmeController.createQueuePair`
   */
  async add(jobs: readonly PlannedJob[]): Promise<void> {
    this.#doorbells ??= this.#openDoorbells();
    for (const job of jobs) this.#running.add(job);
    await this.#create(jobs);
  }

  /** Where a job begins. When the controller has gone already, it pauses at once. */
  first(job: PlannedJob): QueueLocation {
    this.#watch.begin();
    return this.#locate(job);
  }

  /**
   * Where a job that has paused goes on, when the controller is back.
   *
   * @param held commands that it had in flight
   * @returns null when the job is to end: the controller does not come back, or the run is to end meanwhile
   */
  next(job: PlannedJob, held: number): Promise<QueueLocation | null> {
    this.#outages.paused(job, held);
    return new Promise((resolve) => {
      this.#waiting.set(job, resolve);
      this.#releaseStopped();
      void this.#supply();
    });
  }

  /** A job has ended. */
  ended(job: PlannedJob): void {
    this.#running.delete(job);
    this.#outages.ended(job);
    void this.#supply();
  }

  /** Asks all jobs to end: those that run with what is in flight, those that have paused at once. */
  stop(): void {
    for (const { state } of this.#running) state.stop();
    this.#releaseStopped();
  }

  /** Asks all jobs to end at once. */
  giveUp(): void {
    for (const { state } of this.#running) state.giveUp();
    this.#releaseStopped();
  }

  /** Tells all jobs that there is nothing left to do. */
  abandon(): void {
    for (const { state } of this.#running) state.abandon();
    this.#releaseStopped();
  }

  /** The gaps that some jobs had until now. */
  gaps(jobs: readonly PlannedJob[]): Gap[] {
    return this.#outages.gaps(jobs);
  }

  /** Nothing more is told of the controller, and no job begins any more. */
  close(): void {
    this.#closeDoorbells();
    this.#watch.end();
    const { device } = this.#controller;
    this.#controller.off('disconnect', this.#onDisconnect);
    device.off('reconnect', this.#onConnected);
    this.#controller.off('reconnect', this.#onReconnect);
    this.#controller.off('close', this.#onClose);
  }

  /** Deletes all queue pairs, which no job uses any more. */
  async delete(): Promise<void> {
    for (const pair of this.#pairs.values()) await pair.delete();
    this.#pairs.clear();
  }

  #openDoorbells(): SharedFile | null {
    const { doorbellArea: area } = this.#controller;
    return area && { fd: duplicateFd(area.fd), offset: area.fdOffset, size: area.size };
  }

  #closeDoorbells(): void {
    if (this.#doorbells !== null) closeFd(this.#doorbells.fd);
    this.#doorbells = null;
  }

  async #create(jobs: Iterable<PlannedJob>): Promise<void> {
    for (const planned of jobs) {
      const { entries, job } = planned;
      const handler = job.completion === 'poll' ? undefined : 'eventfd';
      this.#pairs.set(planned, await this.#controller.createQueuePair(entries, handler));
    }
  }

  /** Creates queue pairs anew, once the controller is back and no job uses those before. */
  async #supply(): Promise<void> {
    if (!this.#up || this.#supplying || this.#waiting.size === 0) return;
    if (this.#waiting.size < this.#running.size) return;
    const losses = this.#losses;
    this.#supplying = true;
    try {
      // The controller has no such queues any more: nothing is sent.
      await this.delete();
      this.#closeDoorbells();
      this.#doorbells = this.#openDoorbells();
      await this.#create(this.#running);
    } catch (error) {
      if (losses === this.#losses) this.#fail(asError(error));
    }
    this.#supplying = false;
    if (losses === this.#losses) this.#goOn();
    // Lost once more, it may be back already.
    else void this.#supply();
  }

  #goOn(): void {
    for (const [job, resolve] of this.#waiting) {
      job.state.paused = false;
      resolve(this.#locate(job));
    }
    this.#waiting.clear();
    this.#watch.begin();
  }

  /** Jobs that wait, and are to end, do so without a queue pair. */
  #releaseStopped(): void {
    for (const [job, resolve] of this.#waiting) {
      const { wish } = job.state;
      if (wish === Wish.goOn || wish === Wish.finish) continue;
      this.#waiting.delete(job);
      resolve(null);
    }
  }

  #fail(error: Error): void {
    if (this.lost !== undefined) return;
    this.lost = error;
    this.abandon();
    this.#onLost();
  }

  #locate(job: PlannedJob): QueueLocation {
    const pair = this.#pairs.get(job);
    if (pair === undefined) throw new Error('unreachable: a job runs without a queue pair');
    const { placement, interruptFd = null } = pair;
    return { queue: placement, interruptFd, doorbells: this.#doorbells };
  }
}
