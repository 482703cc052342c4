// SPDX-License-Identifier: MIT
import { MappedDirtyLog, type LoggedRanges } from '../device/dirty-log';
import type { DmaDevices } from '../dma/devices';
import type { DmaRange } from '../dma/memory';
import { VfioUserError } from '../errors';
import { DirtyBitmap, Feature, type DirtyPages } from '../protocol';
import type { KernelFeatures } from './device-feature';
import type { DirtyTracker, LoggedSpan } from './dirty-tracker';

/** As many spans as the kernel takes of every device: they fit into a page of 4 KiB (`linux/vfio.h`, "num_ranges"). */
const MAX_SPANS = 256;

/** Which memory a device of the kernel's has written: as the device tells, or as its IOMMU does where it cannot. */
export class KernelDirtyLog extends MappedDirtyLog {
  readonly #name: string;
  readonly #features: KernelFeatures;
  readonly #devices: DmaDevices;
  readonly #ofDevice: DirtyTracker;
  readonly #ofIommu: DirtyTracker | null;
  #tracker: DirtyTracker | null = null;
  /** What the tracker logs; null when that is all that is mapped. */
  #spans: readonly LoggedSpan[] | null = null;
  /** Whether the user has chosen the spans, so that what is outside of them does not matter. */
  #chosen = false;

  /**
   * @param devices of the container
   * @param ofIommu null when the IOMMU does not log
   */
  constructor(
    name: string,
    features: KernelFeatures,
    devices: DmaDevices,
    ofDevice: DirtyTracker,
    ofIommu: DirtyTracker | null,
  ) {
    super(name, devices);
    this.#name = name;
    this.#features = features;
    this.#devices = devices;
    this.#ofDevice = ofDevice;
    this.#ofIommu = ofIommu;
  }

  override async supported(): Promise<boolean> {
    return this.#ofIommu !== null || (await this.#deviceLogs());
  }

  protected override async begin(pageSize: number, ranges: LoggedRanges): Promise<number> {
    const tracker = (await this.#deviceLogs()) ? this.#ofDevice : this.#ofIommu;
    if (tracker === null)
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `neither ${this.#name} nor its IOMMU logs the pages that it writes; take all pages for dirty`,
      );
    const asked = ranges.map(({ iova, length }) => ({ iova: BigInt(iova), length: BigInt(length) }));
    const spans = asked.length > 0 ? asked : this.#mappedSpans();
    const chosen = tracker.start(pageSize, spans);
    this.#tracker = tracker;
    this.#spans = tracker.bySpans ? spans : null;
    this.#chosen = asked.length > 0;
    return chosen;
  }

  protected override end(): Promise<void> {
    this.#tracker?.stop();
    this.#tracker = null;
    return Promise.resolve();
  }

  /** Ends the log of a device that is closed: what the IOMMU keeps for it goes. */
  close(): void {
    if (this.pages === null) return;
    this.release();
    const tracker = this.#tracker;
    this.#tracker = null;
    if (tracker === this.#ofDevice) return;
    try {
      tracker?.stop();
    } catch {
      // A call under way still holds the device; what the iommufd keeps for it goes with that.
    }
  }

  protected override fetch(pages: DirtyPages, range: DmaRange): Promise<void> {
    const all = { iova: range.iova, length: BigInt(range.size) };
    const logged = this.#spans === null ? [all] : this.#spans.flatMap((span) => common(all, span));
    for (const { iova, length } of logged) this.#take(pages, iova, Number(length));
    const isWhole = logged.some(({ length }) => length === all.length);
    // It was mapped after the log was begun, for what was mapped then: nobody knows what was written of it.
    if (!isWhole && !this.#chosen) pages.mark(range.iova, range.size);
    return Promise.resolve();
  }

  #take(pages: DirtyPages, iova: bigint, length: number): void {
    const { pageSize } = this;
    const most = this.#tracker?.maxLength ?? 0;
    for (let at = 0; at < length; at += most) {
      const part = Math.min(most, length - at);
      const bitmap = new DirtyBitmap(iova + BigInt(at), part, pageSize);
      this.#tracker?.take(bitmap.iova, part, pageSize, bitmap.bytes);
      pages.merge(bitmap);
    }
  }

  /** What is mapped, as spans that do not touch; one for all when there are too many. */
  #mappedSpans(): LoggedSpan[] {
    const spans: { iova: bigint; length: bigint }[] = [];
    for (const { iova, size, fd } of this.#devices.ranges) {
      if (fd === null) continue;
      const last = spans.at(-1);
      if (last !== undefined && last.iova + last.length === iova) last.length += BigInt(size);
      else spans.push({ iova, length: BigInt(size) });
    }
    const [first, last] = [spans[0], spans.at(-1)];
    if (first === undefined || last === undefined)
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `nothing is mapped for ${this.#name}, so that it could write nothing; map memory first, or name the ranges`,
      );
    return spans.length <= MAX_SPANS
      ? spans
      : [{ iova: first.iova, length: last.iova + last.length - first.iova }];
  }

  async #deviceLogs(): Promise<boolean> {
    return (
      (await this.#features.probe(Feature.dmaLoggingStart, { set: true })) &&
      (await this.#features.probe(Feature.dmaLoggingReport, { get: true }))
    );
  }
}

/** What two spans have in common, if anything. */
function common(a: LoggedSpan, b: LoggedSpan): LoggedSpan[] {
  const iova = a.iova > b.iova ? a.iova : b.iova;
  const [endA, endB] = [a.iova + a.length, b.iova + b.length];
  const end = endA < endB ? endA : endB;
  return end > iova ? [{ iova, length: end - iova }] : [];
}
