// SPDX-License-Identifier: MIT
import { VfioUserError, asError } from '../errors';
import type { NvmeController, NvmeNamespace } from '../nvme/host';
import { SentDoorbells } from '../nvme/host/doorbells';
import type { Device } from '../pci';
import type { Gap } from './gap';
import type { JobEnd, JobResult } from './job-result';
import { runBetweenTurns, runInWorker, type JobControl } from './job-runner';
import { timeoutOf, type RunOptions, type WorkloadOptions } from './options';
import type { BenchmarkTarget, PartResult } from './part-result';
import { attachController, pickNamespace, planJobs, type PlannedJob } from './plan';
import { QueueSupply } from './queue-supply';
import type { StatusWatch } from './status-watch';

/** A workload at an endpoint. */
export interface EndpointPart {
  /** By its index in what was asked for. */
  readonly workload: number;
  readonly options: WorkloadOptions;
  readonly namespace: NvmeNamespace;
  readonly jobs: readonly PlannedJob[];
}

/** A controller has so long to shut down, also when its jobs have used up the time-out. */
const LEAST_SHUTDOWN_MILLISECONDS = 250;

/** A controller that is measured, with the jobs that do so. */
export class Endpoint {
  /** Gives the jobs their queue pairs. */
  readonly supply: QueueSupply;
  /** Called when the controller is gone for good. */
  onLost: () => void = () => undefined;
  readonly #controller: NvmeController;
  readonly #run: RunOptions;
  readonly #parts: EndpointPart[] = [];

  private constructor(controller: NvmeController, run: RunOptions) {
    this.#controller = controller;
    this.#run = run;
    this.supply = new QueueSupply(controller, () => {
      this.onLost();
    });
  }

  /**
   * Brings the controller of a device up, with memory for the jobs of these workloads.
   *
   * @throws VfioUserError when it does not start
   */
  static async open(
    device: Device,
    workloads: readonly WorkloadOptions[],
    run: RunOptions,
  ): Promise<Endpoint> {
    return new Endpoint(await answering(device, () => attachController(device, workloads, run)), run);
  }

  /** What runs here, in the order in which it was added. */
  get parts(): readonly EndpointPart[] {
    return this.#parts;
  }

  get jobs(): PlannedJob[] {
    return this.#parts.flatMap(({ jobs }) => jobs);
  }

  /**
   * Plans the jobs of a workload, and creates their queues.
   *
   * @throws RangeError or TypeError for what this controller cannot do
   */
  async add(workload: number, options: WorkloadOptions): Promise<void> {
    const controller = this.#controller;
    const namespace = pickNamespace(controller, options.nsid);
    const jobs = planJobs(controller, namespace, options, this.#run, this.jobs.length);
    await answering(controller.device, () => this.supply.add(jobs));
    this.#parts.push({ workload, options, namespace, jobs });
  }

  /** Runs all jobs. Returns the results of the jobs of each part. */
  async run(status: StatusWatch): Promise<JobResult[][]> {
    const { arena, device, capabilities, mappedDoorbells } = this.#controller;
    const bar = await device.region('bar0');
    const starts = this.#parts.map(({ jobs }) =>
      jobs.map((planned) => ({ planned, start: { job: planned.job, location: this.supply.first(planned) } })),
    );
    const run = async ({ planned, start }: (typeof starts)[number][number]): Promise<JobResult> => {
      const control: JobControl = {
        snapshot: (result) => {
          status.take(planned, result);
        },
        next: (held) => this.supply.next(planned, held),
      };
      const doorbells = (): SentDoorbells => new SentDoorbells(bar, capabilities.dstrd);
      const result = await (mappedDoorbells
        ? runInWorker(start, control)
        : runBetweenTurns(start, arena.memory.buffer, doorbells, control));
      this.supply.ended(planned);
      status.take(planned, result);
      return result;
    };
    return Promise.all(starts.map((jobs) => Promise.all(jobs.map(run))));
  }

  /** What a part has measured, in the results of its jobs. */
  result(part: EndpointPart, results: readonly JobResult[]): Omit<PartResult, 'endpoint' | 'doubts'> {
    const { identify, device, version, mappedDoorbells } = this.#controller;
    const { workload, namespace, jobs } = part;
    const { lost } = this.supply;
    const target: BenchmarkTarget = {
      endpoint: device.name,
      model: identify.mn,
      serial: identify.sn,
      firmware: identify.fr,
      version,
      nsid: namespace.id,
      lbaSize: namespace.blockSize,
      capacity: namespace.size,
      mappedDoorbells,
    };
    const gaps = this.supply.gaps(jobs);
    const told = results.map((result) => ({
      ...result,
      ended: lost === undefined ? endAfterGaps(result.ended, gaps) : lossEnd(lost),
    }));
    return { workload, target, jobs: told, gaps };
  }

  /**
   * Deletes the queues of the controller, unless it has stalled, and shuts it down, in the time that its jobs have left of the
   * time-out. The device is closed when that is over, so that nothing waits for it any more.
   *
   * @returns why it failed; undefined when it did not, or the device is gone
   */
  async shutDown(stalled: boolean): Promise<VfioUserError | undefined> {
    const { device } = this.#controller;
    const waited = Math.max(0, ...this.jobs.map(({ state }) => state.waitedMs));
    const expiry = new AbortController();
    const timer = setTimeout(
      () => {
        expiry.abort();
        void device.close();
      },
      Math.max(timeoutOf(this.#run) - waited, LEAST_SHUTDOWN_MILLISECONDS),
    );
    try {
      this.supply.close();
      // With doorbells by message, a device that has stopped would block the thread at the first command.
      if (!stalled) await this.#deleteQueues();
      await this.#controller.close();
      return expiry.signal.aborted ? silent(device, 'while it was shut down') : undefined;
    } catch (error) {
      if (!(error instanceof VfioUserError)) throw asError(error);
      return error.code === 'ERR_VFIO_USER_TIMEOUT' ? silent(device, 'while it was shut down', error) : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Where that fails, the shutdown that follows ends the queues too. */
  async #deleteQueues(): Promise<void> {
    try {
      await this.supply.delete();
    } catch (error) {
      if (!(error instanceof VfioUserError)) throw error;
    }
  }
}

/** Why data may differ, where the server was away. */
function endAfterGaps(ended: JobEnd, { length }: readonly Gap[]): JobEnd {
  if (ended.reason !== 'mismatch' || length === 0) return ended;
  const times = length === 1 ? 'once' : `${length} times`;
  const why = `the server was away ${times}, and may have lost what it had in memory or in a volatile cache`;
  return { ...ended, message: `${ended.message}; ${why}` };
}

function lossEnd(lost: Error): JobEnd {
  if (lost instanceof VfioUserError && lost.code === 'ERR_VFIO_USER_IDENTITY')
    return {
      reason: 'replaced',
      message: `was replaced during the run: ${lost.message}; a drive in memory loses its data with its server, one in a file keeps it (serve nvme --backend file)`,
    };
  if (lost instanceof VfioUserError && lost.code === 'ERR_VFIO_USER_NVME_CONTROLLER')
    return { reason: 'broken', message: `failed during the run: ${lost.message}` };
  return { reason: 'lost', message: `went away during the run: ${lost.message}` };
}

/** Names the device that has not answered in time: messages and commands tell of themselves alone. */
async function answering<T>(device: Device, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_TIMEOUT') throw error;
    throw silent(device, 'before the run', error);
  }
}

function silent({ name }: Device, when: string, cause?: Error): VfioUserError {
  const text = `${name} stopped answering ${when}; look at its server, or wait longer with --timeout`;
  return new VfioUserError('ERR_VFIO_USER_TIMEOUT', text, { cause });
}
