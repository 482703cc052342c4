// SPDX-License-Identifier: MIT
import type { Gap } from './gap';
import { monotonicTime } from './monotonic';
import type { PlannedJob } from './plan';

/** How a job has come through an outage. */
interface JobOutage {
  /** Whether it has paused: a job does so when it comes to look. */
  paused: boolean;
  /** Commands that were in flight then. */
  held: number;
  /** When its first I/O completed after it; 0 when none has. */
  firstIoAt: number;
}

/** A time without a connection, or a controller that works. Moments are by the clock of all threads. */
interface Outage {
  readonly lostAt: number;
  /** When the next connection was there; 0 before. */
  backAt: number;
  /** Milliseconds without a connection, as the device has measured it. */
  awayMs: number;
  readonly jobs: Map<PlannedJob, JobOutage>;
}

/** Writes down when an endpoint was away, and how its jobs have come through it. */
export class OutageLog {
  readonly #outages: Outage[] = [];

  /** The connection was lost, while these jobs ran. */
  lost(running: Iterable<PlannedJob>): void {
    const jobs = new Map<PlannedJob, JobOutage>();
    for (const job of running) jobs.set(job, { paused: false, held: 0, firstIoAt: 0 });
    this.#outages.push({ lostAt: monotonicTime(), backAt: 0, awayMs: 0, jobs });
  }

  /** There is another connection, or the controller is up again over the one that there was. Said again, it does not count. */
  back(awayMs: number): void {
    const outage = this.#outages.at(-1);
    if (outage === undefined || outage.backAt > 0) return;
    outage.backAt = monotonicTime();
    outage.awayMs = awayMs;
  }

  /** A job has paused, with commands in flight. */
  paused(job: PlannedJob, held: number): void {
    this.#settle(job);
    const outage = this.#outages.at(-1)?.jobs.get(job);
    if (outage === undefined) return;
    outage.paused = true;
    outage.held = held;
    job.state.firstIoAt = 0;
  }

  /** A job has ended. An outage that it has not noticed is none of its gaps. */
  ended(job: PlannedJob): void {
    this.#settle(job);
    const jobs = this.#outages.at(-1)?.jobs;
    if (jobs?.get(job)?.paused === false) jobs.delete(job);
  }

  /** The gaps that some jobs of this endpoint had, until now. */
  gaps(jobs: readonly PlannedJob[]): Gap[] {
    for (const job of jobs) this.#settle(job);
    // A thread that has not begun yet has no such moment.
    const measuredAt = Math.min(...jobs.map(({ state }) => state.measuredAt || Infinity));
    return this.#outages.flatMap(({ lostAt, backAt, awayMs, jobs: all }) => {
      const seen = jobs.flatMap((job) => all.get(job) ?? []);
      if (seen.length === 0) return [];
      const back = backAt > 0;
      const firstIos = seen.flatMap(({ firstIoAt }) => (firstIoAt > 0 ? [firstIoAt - backAt] : []));
      return {
        atMs: measuredAt === Infinity ? 0 : lostAt - measuredAt,
        back,
        awayMs: back ? awayMs : monotonicTime() - lostAt,
        firstIoMs: firstIos.length > 0 ? Math.min(...firstIos) : null,
        resubmitted: seen.reduce((sum, { held }) => sum + held, 0),
      };
    });
  }

  /** Takes over what a job has told of the last outage that it paused for. */
  #settle(job: PlannedJob): void {
    const last = this.#outages.findLast(({ jobs }) => jobs.get(job)?.paused === true)?.jobs.get(job);
    if (last !== undefined && job.state.firstIoAt > 0) last.firstIoAt = job.state.firstIoAt;
  }
}
