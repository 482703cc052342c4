// SPDX-License-Identifier: MIT
import { Mutex } from '../async';
import { VfioUserError, asError } from '../errors';
import { DirtyBitmap, MIN_DIRTY_PAGE_SIZE } from '../protocol/dirty-pages';
import { ALL_ADDRESSES, intersect, type IovaSpan } from './iova-spans';
import { readMemory, writeMemory, type MappedRange } from './memory';
import { RangeChange } from './range-change';
import { IovaTable, formatRange, type IovaRange } from './table';
import { checkSpans, checkTarget, type DmaTarget } from './target';

/** Tells a device of changes, and what it answers, as {@link DmaTarget.change}. */
type Tell = (target: DmaTarget, changes: readonly RangeChange[]) => Promise<readonly (Error | null)[]>;

const tellChanges: Tell = (target, changes) => target.change(changes);

/** The protocol knows none below (vfio-user, VFIO_USER_VERSION, "pgsizes"). */
const SMALLEST_PAGE = 4096;

/**
 * The devices of a container, and the ranges that they are told of. A range is in the table from before the first device is
 * told of it until the last has let go of it; its memory and descriptor belong to the table.
 */
export class DmaDevices {
  readonly ranges = new IovaTable<MappedRange>();
  readonly #targets = new Set<DmaTarget>();
  /** What the devices have been told of and not answered yet. */
  readonly #underWay = new Set<Promise<void>>();
  readonly #mutex = new Mutex();
  #closed = false;

  /** The largest of the pages that devices take as their smallest, in bytes. */
  get pageSize(): number {
    return Math.max(SMALLEST_PAGE, ...[...this.#targets].map(({ dmaPageSize }) => dmaPageSize));
  }

  /** Number of ranges that every device takes at a time. */
  get maxDmaMaps(): number {
    return Math.min(...[...this.#targets].map(({ maxDmaMaps }) => maxDmaMaps));
  }

  /** The addresses that every device can be told of. */
  get iovaSpans(): readonly IovaSpan[] {
    return [...this.#targets].reduce(
      (left, { iovaSpans }) => intersect(left, iovaSpans ?? ALL_ADDRESSES),
      [...ALL_ADDRESSES],
    );
  }

  /** Runs an action while nothing else changes the table, but for mappings that are closed meanwhile. */
  alone<T>(action: () => Promise<T>): Promise<T> {
    return this.#mutex.run(async () => {
      while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
      return action();
    });
  }

  /** Runs an action when none runs {@link alone}. */
  shared<T>(action: () => Promise<T>): Promise<T> {
    return this.#mutex.runShared(action);
  }

  assertOpen(): void {
    if (!this.#closed) return;
    throw new VfioUserError(
      'ERR_VFIO_USER_CLOSED',
      'the DMA container is closed, and its device with it; connect again',
    );
  }

  /**
   * Adds a device, and tells it what is mapped.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when the device does not take so many ranges or their pages; nothing was sent
   */
  attach(target: DmaTarget): Promise<void> {
    return this.alone(async () => {
      this.assertOpen();
      const ranges = [...this.ranges];
      checkTarget(target, ranges);
      // Entered first, so that it is also told of what is closed from now on.
      this.#targets.add(target);
      const results = await target.change(ranges.map((range) => ({ kind: 'map', range })));
      for (const error of results) {
        if (error === null) continue;
        this.#targets.delete(target);
        throw error;
      }
    });
  }

  /** Forgets a device, without telling it. */
  detach(target: DmaTarget): void {
    this.#targets.delete(target);
  }

  /**
   * Enters a range, still unknown to the devices.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when it overlaps, is one too many, or no range at all; CLOSED
   */
  enter(range: MappedRange): void {
    this.assertOpen();
    this.checkSpans(range);
    for (const target of this.#targets) {
      if (this.ranges.size < target.maxDmaMaps) continue;
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${target.name} takes at most ${target.maxDmaMaps} DMA mappings, and so many are in use; unmap some, or make fewer and larger ones`,
      );
    }
    this.ranges.add(range);
  }

  /** @throws VfioUserError ERR_VFIO_USER_DMA when a device cannot be told of the addresses of a range */
  checkSpans(range: IovaRange): void {
    for (const target of this.#targets) checkSpans(target, range);
  }

  /** Tells the devices of a range that was entered; when one refuses, the others forget it again, and so does the table. */
  async show(range: MappedRange): Promise<void> {
    const change = new RangeChange('map', range);
    await this.change([[change]]);
    await change.finished();
  }

  /**
   * Tells the devices of changes, all of them before the first reply. What one refuses to map is taken back from the
   * others. What one refuses to unmap stays. Never rejects: each change has its own error.
   *
   * @param runs changes in their order; maps of the first run are entered already, those of another run take the place of
   *   what the run before it unmaps, and are entered when that has left
   */
  async change(runs: readonly (readonly RangeChange[])[]): Promise<void> {
    await this.#track(async () => {
      let done: Promise<void> | null = null;
      for (const run of runs) done = this.#tell(run, tellChanges, done);
      await done;
      await this.#takeBack(runs);
    });
  }

  /** Takes a range from the devices. It leaves the table when all have let go of it (vfio-user, VFIO_USER_DMA_UNMAP, "Reply"). */
  async leave(range: MappedRange): Promise<void> {
    await (range.leaving ?? this.#beginLeaving(range, tellChanges)).finished();
  }

  /**
   * As {@link leave}, and tells which pages the devices have written. When one fails, what the others told stays in their logs.
   *
   * @param pageSize bytes that one bit stands for; default the smallest granularity of the logs
   * @throws TypeError, VfioUserError before anything is sent: what one of the devices has written cannot be told
   */
  async leaveReporting(range: MappedRange, pageSize?: number): Promise<DirtyBitmap> {
    const logs = [...this.#targets].map(({ dirtyLog }) => dirtyLog);
    const units = logs.map((log) => log.checkUnmap(range));
    const unit = pageSize ?? (units.length === 0 ? MIN_DIRTY_PAGE_SIZE : Math.min(...units));
    // Throws for a page size that makes no sense, before anything is sent.
    const dirty = new DirtyBitmap(range.iova, range.size, unit);
    if (range.leaving !== null) throw notMapped(range, this.ranges);
    await this.#beginLeaving(range, ({ dirtyLog }) => outcomeOf(dirtyLog.unmap(range))).finished();
    for (const log of logs) {
      for (const page of log.take(range.iova, range.size, unit).pages()) dirty.mark(page * unit, 1);
    }
    return dirty;
  }

  /** Takes all ranges from the devices. Never rejects: each change has its own error. */
  async leaveAll(): Promise<RangeChange[]> {
    const ranges = [...this.ranges];
    const changes = ranges.map((range) => new RangeChange('unmap', range));
    if (ranges.length > 0)
      await this.#track(() => this.#tell(changes, (target) => target.unmapAll(ranges), null));
    return changes;
  }

  /** Forgets a range without telling the devices, and closes its memory. Idempotent. */
  release(range: MappedRange): void {
    this.ranges.delete(range);
    range.release();
  }

  /** Forgets all devices and ranges without telling the devices; nothing can be mapped afterwards. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#targets.clear();
    for (const range of this.ranges) range.release();
    this.ranges.clear();
  }

  /**
   * Bytes that a device asks for by message; a promise when others have to be asked for them.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when a byte is not mapped, not readable, or without memory of this process
   */
  read(iova: bigint, length: number): Uint8Array | Promise<Uint8Array> {
    return readMemory(this.ranges, iova, length);
  }

  /** Stores bytes that a device sends by message; errors as {@link read}. */
  write(iova: bigint, data: Uint8Array): undefined | Promise<void> {
    const done = writeMemory(this.ranges, iova, data);
    for (const { dirtyLog } of this.#targets) dirtyLog.mark(iova, data.length);
    return done;
  }

  async #track(work: () => Promise<void>): Promise<void> {
    const done = work();
    this.#underWay.add(done);
    try {
      await done;
    } finally {
      this.#underWay.delete(done);
    }
  }

  #beginLeaving(range: MappedRange, tell: Tell): RangeChange {
    const change = new RangeChange('unmap', range);
    void this.#track(() => this.#tell([change], tell, null));
    return change;
  }

  /** Tells all devices at once, and marks what is being unmapped. Never rejects. */
  #tell(changes: readonly RangeChange[], tell: Tell, before: Promise<void> | null): Promise<void> {
    const answers = [...this.#targets].map(async (target) => {
      for (const [index, error] of (await tell(target, changes)).entries())
        if (error !== null) changes[index]?.refuse(error, target);
    });
    const answered = this.#settle(changes, Promise.all(answers), before);
    for (const change of changes) {
      change.answered = answered;
      if (change.kind === 'unmap') change.range.leaving = change;
    }
    return answered;
  }

  /** Enters and removes ranges as the devices answer. Maps that one has refused are left to {@link #takeBack}. */
  async #settle(
    changes: readonly RangeChange[],
    answers: Promise<unknown>,
    before: Promise<void> | null,
  ): Promise<void> {
    if (before !== null) {
      await before;
      for (const change of changes) if (change.kind === 'map') this.#enterLate(change);
    }
    await answers;
    for (const change of changes) if (change.kind === 'unmap') this.#left(change);
  }

  /** Enters a range whose place was taken when the devices were told of it. */
  #enterLate(change: RangeChange): void {
    try {
      this.assertOpen();
      this.ranges.add(change.range);
    } catch (error) {
      change.refuse(asError(error));
    }
  }

  #left({ range, held }: RangeChange): void {
    range.leaving = null;
    if (held) return;
    // A range that never got its place: another has it, whose earlier unmap was refused. The devices have let go of that now.
    const other = this.ranges.delete(range) ? undefined : this.ranges.get(range.iova, range.size);
    if (other !== undefined) this.release(other);
    range.release();
  }

  /** Releases what was not mapped everywhere, when the devices that have it have been told. */
  async #takeBack(runs: readonly (readonly RangeChange[])[]): Promise<void> {
    const isRefused = ({ kind, range, error }: RangeChange): boolean =>
      error !== null && kind === 'map' && !range.released;
    const refused = runs.flatMap((run) => run.filter(isRefused));
    if (refused.length === 0) return;
    const told = [...this.#targets].map((target) => {
      const taken = refused.filter((change) => !change.isRefusedBy(target));
      return target.change(taken.map(({ range }) => ({ kind: 'unmap', range })));
    });
    await Promise.all(told);
    for (const { range } of refused) this.release(range);
  }
}

/** What became of an unmap, as {@link DmaTarget.change} tells it. */
async function outcomeOf(unmap: Promise<void>): Promise<[Error | null]> {
  try {
    await unmap;
    return [null];
  } catch (error) {
    return [asError(error)];
  }
}

/**
 * The mappings that lie within a range, by address.
 *
 * @param which begins the message of an error
 * @throws VfioUserError ERR_VFIO_USER_DMA when the range cuts through one, is empty, or leaves the 64-bit address space
 */
export function mappingsWithin(
  mapped: IovaTable<MappedRange>,
  iova: bigint,
  size: bigint,
  which = '',
): readonly MappedRange[] {
  const where = `${which}0x${iova.toString(16)}+0x${size.toString(16)}`;
  if (iova < 0n || size < 1n || iova + size > 1n << 64n)
    throw new VfioUserError('ERR_VFIO_USER_DMA', `${where} is empty or not within 64 bits of address`);
  const { ranges, cut } = mapped.within(iova, size);
  if (cut === undefined) return ranges;
  throw new VfioUserError(
    'ERR_VFIO_USER_DMA',
    `${where} cuts through the mapping ${formatRange(cut)}; a mapping is unmapped as a whole. Mapped: ${mapped.dump()}`,
  );
}

/** The error for a range that is no mapping. */
export function notMapped(range: IovaRange, mapped: IovaTable<MappedRange>): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_DMA',
    `${formatRange(range)} is not mapped; address and size must be those of one mapping. Mapped: ${mapped.dump()}`,
  );
}
