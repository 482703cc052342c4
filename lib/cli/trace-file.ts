// SPDX-License-Identifier: MIT
import { closeSync, openSync, writeSync } from 'node:fs';
import { PciIrq, PciRegion } from '../pci';
import type { ProxyStep, StepObserver } from '../proxy';
import { UsageError } from './option-spec';
import { complain, hex, printable } from './output';

const REGIONS = namesOf(PciRegion);
const IRQS = namesOf(PciIrq);
/** Most bytes of an access that are shown. */
const SHOWN_BYTES = 16;
/** Characters that are gathered before they are written, also within a turn of the event loop. */
const GATHERED = 1 << 16;

/**
 * What went through a proxy, a line for each step. The lines of a turn of the event loop are written together at its end, so that the
 * file has what came before a crash.
 */
export class TraceFile {
  /** To be given to the proxy. */
  readonly observer: StepObserver;
  readonly #path: string;
  readonly #start = performance.now();
  #fd: number | null;
  #text = '';
  #flush: NodeJS.Immediate | null = null;

  /** @throws UsageError when the file cannot be written */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#fd = openSync(path, 'w');
    } catch (error) {
      throw new UsageError(`--trace cannot write ${path}: ${String((error as NodeJS.ErrnoException).code)}`);
    }
    this.observer = (step, error) => {
      const seconds = ((performance.now() - this.#start) / 1000).toFixed(6);
      const end = error === null ? '' : `: refused, ${printable(error.message)}`;
      this.#write(`${seconds.padStart(12)} ${stepText(step)}${end}\n`);
    };
  }

  close(): void {
    this.#write('');
    this.#empty();
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #write(line: string): void {
    if (this.#fd === null) return;
    this.#text += line;
    if (this.#text.length > GATHERED) this.#empty();
    this.#flush ??= setImmediate(() => {
      this.#empty();
    });
  }

  #empty(): void {
    if (this.#flush !== null) clearImmediate(this.#flush);
    this.#flush = null;
    if (this.#fd === null) return;
    const text = this.#text;
    this.#text = '';
    try {
      writeSync(this.#fd, text);
    } catch (error) {
      complain(`The trace ends, as ${this.#path} takes no more: ${(error as Error).message}`);
      closeSync(this.#fd);
      this.#fd = null;
    }
  }
}

function stepText(step: ProxyStep): string {
  switch (step.kind) {
    case 'attach':
    case 'detach':
      return `${step.kind.padEnd(6)} ${printable(step.client)}`;
    case 'read':
    case 'write':
      return `${step.kind.padEnd(6)} ${regionName(step.region)} ${hex(step.offset)}+${step.data.length} ${bytesText(step.data)}`;
    case 'map':
      return `map    ${rangeText(step.range)} ${accessText(step.range)}${step.hasFile ? '' : ' by message'}`;
    case 'unmap':
      return `unmap  ${rangeText(step.range)}`;
    case 'dma-read':
    case 'dma-write':
      return `${step.kind} ${rangeText({ iova: step.iova, size: step.length })}`;
    case 'set-irqs':
      return `irqs   ${changeText(step)}`;
    case 'signal':
      return `signal ${irqName(step.index)} ${step.vector}${step.signals === 1 ? '' : ` (${step.signals} times)`}`;
    case 'reset':
      return 'reset';
    case 'feature':
      return `feature ${step.operation} ${step.feature}`;
    case 'migration-read':
    case 'migration-write':
      return `${step.kind} ${step.length}`;
  }
}

/** One register is a number; more bytes are a row of them, in the order of their addresses. */
function bytesText(data: Uint8Array): string {
  const shown = Buffer.from(data.subarray(0, SHOWN_BYTES));
  if ([1, 2, 4, 8].includes(data.length)) return `0x${shown.reverse().toString('hex')}`;
  return `${shown.toString('hex')}${data.length > SHOWN_BYTES ? '…' : ''}`;
}

function rangeText({ iova, size }: { readonly iova: bigint; readonly size: number }): string {
  return `${hex(iova)}+${hex(size)}`;
}

function accessText({
  readable,
  writable,
}: {
  readonly readable: boolean;
  readonly writable: boolean;
}): string {
  return `${readable ? 'r' : '-'}${writable ? 'w' : '-'}`;
}

function changeText({ request, eventFds }: Extract<ProxyStep, { kind: 'set-irqs' }>): string {
  const { index, data, action, start, count } = request;
  if (count === 0) return `${irqName(index)} disable`;
  const vectors = count === 1 ? `${start}` : `${start}-${start + count - 1}`;
  const what = data !== 'eventfd' ? 'now' : eventFds > 0 ? 'by eventfd' : 'by none';
  return `${irqName(index)} ${vectors} ${action} ${what}`;
}

function regionName(index: number): string {
  return REGIONS.get(index) ?? `region${index}`;
}

function irqName(index: number): string {
  return IRQS.get(index) ?? `irq${index}`;
}

function namesOf(indexes: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(indexes).map(([name, index]) => [index, name]));
}
