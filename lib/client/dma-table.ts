// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { IovaMap, formatRange, type IovaRange } from '../pci/iova-map';
import { DirtyBitmap, MIN_DIRTY_PAGE_SIZE } from '../protocol';
import type { DmaBatchOutcome } from './dma-batch';
import { mayStillHold, type DmaRange, type DmaTarget } from './dma-range';
import { callBack, pipelined, promised, type Done } from './pipeline';

/** A device that did not do what it was told. */
interface Failure {
  readonly target: DmaTarget;
  readonly error: unknown;
}

/** The protocol knows none below (vfio-user, VFIO_USER_VERSION, "pgsizes"). */
const SMALLEST_PAGE = 4096;

/**
 * Which ranges are shown to which devices. A range is in the table from before the first device is told of it until the last
 * has let go of it; its memory and descriptor belong to the table.
 */
export class DmaTable {
  readonly #ranges = new IovaMap<DmaRange>();
  readonly #targets = new Set<DmaTarget>();
  /** Ranges that are being taken from the devices, and when they are. */
  readonly #leaving = new WeakMap<DmaRange, Promise<void>>();

  /** For look-ups. Change it by the methods of this class only. */
  get ranges(): IovaMap<DmaRange> {
    return this.#ranges;
  }

  /** The ranges that are not being taken from the devices. */
  get staying(): DmaRange[] {
    return [...this.#ranges].filter((range) => !this.#leaving.has(range));
  }

  /** How many devices are told of each range. */
  get deviceCount(): number {
    return this.#targets.size;
  }

  /** The largest of the pages that devices take as their smallest, in bytes. */
  get pageSize(): number {
    return Math.max(SMALLEST_PAGE, ...[...this.#targets].map(({ dmaPageSize }) => dmaPageSize));
  }

  /** Ranges at a time that all devices take. */
  get maxDmaMaps(): number {
    return Math.min(...[...this.#targets].map(({ maxDmaMaps }) => maxDmaMaps));
  }

  /**
   * Checks that a range can be entered.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when it overlaps, or is one too many; RangeError when there is no such range
   */
  check(range: IovaRange): void {
    const probe = new IovaMap<IovaRange>();
    probe.add(range);
    const other = this.#ranges.overlap(range.iova, range.size);
    if (other !== undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${formatRange(range)} overlaps ${formatRange(other)}. Mapped: ${this.#ranges.dump()}`,
      );
    }
    for (const target of this.#targets) {
      if (this.#ranges.size >= target.maxDmaMaps) {
        throw new VfioUserError(
          'ERR_VFIO_USER_DMA',
          `${target.name} takes at most ${String(target.maxDmaMaps)} DMA mappings, and so many are in use`,
        );
      }
    }
  }

  /**
   * The range with this address and size.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when there is none
   */
  get(iova: bigint, size: number): DmaRange {
    const range = this.#ranges.get(iova, size);
    if (range === undefined) throw notMapped({ iova, size }, this.#ranges);
    return range;
  }

  /**
   * Adds a device, and tells it what is mapped.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when it does not take so many ranges or their pages; nothing was sent then
   */
  async attach(target: DmaTarget): Promise<void> {
    // What is being taken from the others is not shown any more.
    const ranges = this.staying;
    checkTarget(target, ranges);
    // Entered first, so that it is also told of what is mapped from now on.
    this.#targets.add(target);
    const results = await pipelined(ranges.length, (done) => (index) => {
      target.mapDma(shown(ranges[index] as DmaRange), done, index);
    });
    const [failure] = results.filter((result) => result !== null);
    if (failure === undefined) return;
    this.#targets.delete(target);
    throw failure.error;
  }

  /** Forgets a device, without a message to it. */
  detach(target: DmaTarget): void {
    this.#targets.delete(target);
  }

  /** Enters the range, then tells every device; when one refuses, the others forget it again. */
  async enter(range: DmaRange): Promise<void> {
    try {
      this.check(range);
      this.#ranges.add(range);
    } catch (error) {
      this.release(range);
      throw error;
    }
    await this.#show(range);
  }

  /**
   * The same for many ranges that were checked: enters the range of an index, and tells `done` of it. A range that may take
   * the place of others, which `left` waits for, enters when they have left.
   */
  entrance(ranges: readonly DmaRange[], done: Done): (index: number, left: Promise<unknown>) => void {
    const [only] = this.#targets;
    const taken: Done = (error, _, index) => {
      if (error === null || only === undefined) done(error, null, index);
      else callBack(this.#unshow(ranges[index] as DmaRange, [{ target: only, error }]), done, index);
    };
    return (index, left) => {
      const range = ranges[index] as DmaRange;
      const alone = only !== undefined && this.#targets.size === 1 && this.#targets.has(only);
      if (!this.#ranges.tryAdd(range)) callBack(this.#replace(range, left), done, index);
      // Nothing is kept for each range that a single device is told of.
      else if (alone) only.mapDma(shown(range), taken, index);
      else callBack(this.#show(range), done, index);
    };
  }

  /** The range leaves the table only when every device has let go of it (vfio-user, VFIO_USER_DMA_UNMAP, "Reply"). */
  leave(range: DmaRange): Promise<void> {
    return this.#leave(range, (target) => target.unmapDma(shown(range)));
  }

  /**
   * The same, with the pages that the devices have written. When a device fails, what the others told stays in their logs.
   *
   * @param pageSize bytes that one bit stands for; default the smallest granularity of the logs
   * @throws TypeError, VfioUserError before anything is sent: what one of the devices has written cannot be told
   */
  async leaveReporting(range: DmaRange, pageSize?: number): Promise<DirtyBitmap> {
    const logs = [...this.#targets].map(({ dirtyLog }) => dirtyLog);
    const units = logs.map((log) => log.checkUnmap(shown(range)));
    const unit = pageSize ?? (units.length === 0 ? MIN_DIRTY_PAGE_SIZE : Math.min(...units));
    // Throws for a page size that makes no sense, before anything is sent.
    const dirty = new DirtyBitmap(range.iova, range.size, unit);
    if (this.#leaving.has(range)) throw notMapped(range, this.#ranges);
    await this.#leave(range, (target) => target.dirtyLog.unmap(shown(range)));
    for (const log of logs) {
      for (const page of log.take(range.iova, range.size, unit).pages()) dirty.mark(page * unit, 1);
    }
    return dirty;
  }

  /** Takes everything from the devices; tells what became of each range. */
  async leaveAll(): Promise<DmaBatchOutcome[]> {
    const ranges = [...this.#ranges];
    if (ranges.length === 0) return [];
    const results = await Promise.all([...this.#targets].map((target) => clear(target, ranges)));
    return ranges.map((range, index) => {
      const errors = results.map((result) => result[index] ?? null).filter((failure) => failure !== null);
      if (!errors.some(({ error }) => mayStillHold(error))) this.release(range);
      const { iova, size } = range;
      return { operation: 'unmap', iova, size, error: errors[0]?.error ?? null };
    });
  }

  /** Forgets a range without a message, and closes its memory. Idempotent. */
  release(range: DmaRange): void {
    this.#ranges.delete(range);
    range.memory?.close();
  }

  /** Forgets all devices and ranges without a message. */
  close(): void {
    this.#targets.clear();
    for (const range of [...this.#ranges]) this.release(range);
  }

  async #replace(range: DmaRange, left: Promise<unknown>): Promise<void> {
    await this.#show(range);
    await left;
    if (this.#leaving.has(range)) return;
    try {
      this.#ranges.add(range);
    } catch (error) {
      this.release(range);
      throw error;
    }
  }

  /** Tells every device; when one refuses, the others forget the range again, and so does the table. */
  async #show(range: DmaRange): Promise<void> {
    const failures = await this.#tell((target) =>
      promised((done) => {
        target.mapDma(shown(range), done, 0);
      }),
    );
    await this.#unshow(range, failures);
  }

  /** Takes a range back from the devices that have taken it, when one has not. */
  async #unshow(range: DmaRange, failures: readonly Failure[]): Promise<void> {
    const [first] = failures;
    if (first === undefined) return;
    // Also those that were attached meanwhile, and found the range in the table.
    const told = [...this.#targets].filter(
      (target) => !failures.some((failure) => failure.target === target),
    );
    await Promise.allSettled(told.map((target) => target.unmapDma(shown(range))));
    this.release(range);
    throw first.error;
  }

  #leave(range: DmaRange, unmap: (target: DmaTarget) => Promise<void>): Promise<void> {
    const leaving = this.#leaving.get(range) ?? this.#takeBack(range, unmap);
    this.#leaving.set(range, leaving);
    return leaving;
  }

  async #takeBack(range: DmaRange, unmap: (target: DmaTarget) => Promise<void>): Promise<void> {
    const failures = await this.#tell(unmap);
    if (failures.some(({ error }) => mayStillHold(error))) this.#leaving.delete(range);
    else this.release(range);
    if (failures[0] !== undefined) throw failures[0].error;
  }

  /** Tells every device of now at once; returns those that failed. */
  async #tell(tell: (target: DmaTarget) => Promise<void>): Promise<Failure[]> {
    const targets = [...this.#targets];
    const results = await Promise.allSettled(targets.map(tell));
    return targets.flatMap((target, index) => {
      const result = results[index];
      return result?.status === 'rejected' ? [{ target, error: result.reason as unknown }] : [];
    });
  }
}

function notMapped(range: IovaRange, mapped: IovaMap<DmaRange>): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_DMA',
    `${formatRange(range)} is not mapped; address and size must be those of one mapping. Mapped: ${mapped.dump()}`,
  );
}

/** A range as devices are told of it. */
function shown(range: DmaRange): DmaRange {
  return range.direct ? range : { ...range, fd: null, fdOffset: 0 };
}

function checkTarget(target: DmaTarget, ranges: readonly DmaRange[]): void {
  if (ranges.length > target.maxDmaMaps) {
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      `${target.name} takes at most ${String(target.maxDmaMaps)} DMA mappings, and ${String(ranges.length)} are in use`,
    );
  }
  const unit = BigInt(target.dmaPageSize);
  for (const range of ranges) {
    if (range.iova % unit === 0n && BigInt(range.size) % unit === 0n && BigInt(range.fdOffset) % unit === 0n)
      continue;
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      `${target.name} takes DMA mappings of pages of ${String(unit)} bytes, of which ${formatRange(range)} is not made`,
    );
  }
}

/** Everything from one device; by range, why it failed. */
async function clear(target: DmaTarget, ranges: readonly DmaRange[]): Promise<({ error: unknown } | null)[]> {
  try {
    await target.unmapAllDma();
    return [];
  } catch (error) {
    // Servers that do not know the flag refuse it with any of several errors; those that are gone are no better asked again.
    if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_REMOTE')
      return ranges.map(() => ({ error }));
  }
  return pipelined(ranges.length, (done) => (index) => {
    callBack(target.unmapDma(shown(ranges[index] as DmaRange)), done, index);
  });
}
