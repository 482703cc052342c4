// SPDX-License-Identifier: MIT
/** An NVMe device in this process, whose controller answers honestly until it is told to lie. */
import { EventEmitter } from 'node:events';
import { VfioUserError } from '../../../lib/errors';
import { Mapping, closeFd, createSharedMemory } from '../../../lib/native';
import {
  ConfigSpace,
  type Device,
  type DeviceInfo,
  type DeviceIrq,
  type DeviceRegion,
  type DmaMemory,
  type MappedArea,
  type RegisterSpace,
} from '../../../lib/pci';
import { AdminOpcode, NvmOpcode, Register, encodeCapabilities, parseVersion } from '../../../lib/nvme/spec';
import { Violation, type Tally } from '../role';
import { Bar, Config, Memory, Msix } from './device-parts';
import { BAR_BYTES, BLOCK, PAGE, VECTORS, identifyData, patternOf } from './honest-data';

/** How a completion is spoilt. */
export const LIES = [
  'status',
  'cid',
  'phase',
  'twice',
  'none',
  'result',
  'queue',
  'head',
  'data',
  'late',
  'unasked',
] as const;
export interface Lie {
  readonly how: (typeof LIES)[number];
  readonly value: number;
  readonly at: number;
}

const ARENA_BASE = 2 ** 32;

interface ControllerQueue {
  readonly id: number;
  readonly submissions: number;
  readonly completions: number;
  readonly entries: number;
  head: number;
  tail: number;
  phase: number;
}

/** The device. `tick` lets its controller look at the doorbells. */
export class HostileDevice extends EventEmitter<{ close: [Error | null] }> implements Device {
  readonly name = 'hostile';
  readonly config: RegisterSpace;
  readonly dma = { allocate: (size: number) => this.#allocate(size) };
  readonly msix = new Msix();
  readonly lies: { lie: Lie; left: number }[] = [];
  /** Values that registers show, for so many reads. */
  readonly shown: { offset: number; value: number; left: number }[] = [];
  /** Bytes of configuration space that read differently. */
  readonly configLies: { at: number; value: number }[] = [];
  readonly memories: Memory[] = [];
  readonly #tally: Tally;
  readonly #bar: Bar;
  readonly #doorbellFd = createSharedMemory(0x1000);
  readonly #doorbells = Mapping.map(this.#doorbellFd, 0, 0x1000);
  readonly #areas: Mapping[] = [];
  readonly #registers = new DataView(new ArrayBuffer(0x1000));
  readonly #queues = new Map<number, ControllerQueue>();
  readonly #late: { queue: ControllerQueue; words: readonly [number, number, number, number] }[] = [];
  readonly #dstrd: number;
  /** Whether a completion said what was not so. */
  #lied = false;
  #gone: VfioUserError | null = null;
  #closed = false;

  /** @param cap CAP, 64 bits, in place of an honest one */
  constructor(tally: Tally, mappable: boolean, cap: bigint | null, dstrd: number) {
    super();
    this.#tally = tally;
    this.#dstrd = dstrd;
    this.#bar = new Bar(this, mappable);
    const space = new ConfigSpace({
      vendorId: 0x4e58,
      deviceId: 1,
      classCode: 0x010802,
      bars: { 0: { kind: 'memory64', size: BAR_BYTES } },
      capabilities: [
        {
          kind: 'msix',
          vectors: VECTORS,
          table: { bar: 0, offset: 0x2000 },
          pba: { bar: 0, offset: 0x3000 },
        },
      ],
    });
    this.config = new Config(this, space);
    const [low, high] = encodeCapabilities({
      maxQueueEntries: 256,
      contiguousQueuesRequired: true,
      weightedRoundRobin: false,
      timeout: 500,
      dstrd,
      subsystemReset: false,
      commandSets: 1,
      minPageSize: PAGE,
      maxPageSize: PAGE,
      persistentMemoryRegion: false,
      controllerMemoryBuffer: false,
      readyWithMedia: false,
      readyIndependentOfMedia: false,
    });
    this.#registers.setUint32(0, low, true);
    this.#registers.setUint32(4, high, true);
    if (cap !== null) this.#registers.setBigUint64(0, cap, true);
    this.#registers.setUint32(Register.vs, parseVersion('2.0'), true);
  }

  info(): Promise<DeviceInfo> {
    return Promise.resolve({ resettable: true, regionCount: 9, irqCount: 5 });
  }

  region(): Promise<DeviceRegion> {
    return Promise.resolve(this.#bar);
  }

  irq(): Promise<DeviceIrq> {
    return Promise.resolve(this.msix);
  }

  reset(): Promise<void> {
    return Promise.resolve();
  }

  /** The other end is gone, as a connection that has failed. */
  vanish(): void {
    if (this.#gone !== null) return;
    this.#gone = new VfioUserError('ERR_VFIO_USER_DISCONNECTED', 'the hostile device has gone');
    this.emit('close', this.#gone);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.vanish();
    await this.msix.disable();
    for (const memory of this.memories) await memory.close();
    for (const area of this.#areas) area.close();
    this.#doorbells.close();
    closeFd(this.#doorbellFd);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  assertThere(): void {
    this.#tally.messages++;
    if (this.#gone !== null) throw this.#gone;
  }

  mapDoorbells(offset: number, length: number): MappedArea {
    this.assertThere();
    const mapping = Mapping.map(this.#doorbellFd, offset - 0x1000, length);
    this.#areas.push(mapping);
    return {
      offset,
      size: length,
      buffer: mapping.buffer,
      fd: this.#doorbellFd,
      fdOffset: offset - 0x1000,
      close: () => {
        mapping.close();
      },
    };
  }

  readRegisters(offset: number, length: number): Uint8Array {
    this.assertThere();
    const bytes = new Uint8Array(length);
    if (offset + length > 0x1000) return bytes;
    bytes.set(new Uint8Array(this.#registers.buffer, offset, length));
    const shown = this.shown.find((one) => one.offset >= offset && one.offset + 4 <= offset + length);
    if (shown === undefined) return bytes;
    new DataView(bytes.buffer).setUint32(shown.offset - offset, shown.value, true);
    if (--shown.left <= 0) this.shown.splice(this.shown.indexOf(shown), 1);
    return bytes;
  }

  writeRegisters(offset: number, data: Uint8Array): void {
    this.assertThere();
    if (offset >= 0x1000) {
      if (offset + data.length <= 0x2000) new Uint8Array(this.#doorbells.buffer).set(data, offset - 0x1000);
      return;
    }
    if (offset === Register.cap || offset === Register.csts) return;
    new Uint8Array(this.#registers.buffer).set(data, offset);
    if (offset === Register.cc) this.#configure(this.#registers.getUint32(Register.cc, true));
  }

  spoilConfig(offset: number, bytes: Uint8Array): Uint8Array {
    for (const { at, value } of this.configLies)
      if (at >= offset && at < offset + bytes.length) bytes[at - offset] = value;
    return bytes;
  }

  /** The controller looks at its doorbells. Returns whether it found anything to do. */
  tick(): boolean {
    if (this.#closed || this.#gone !== null) return false;
    let worked = false;
    const doorbells = new Uint32Array(this.#doorbells.buffer);
    for (const { queue, words } of this.#late.splice(0)) this.#store(queue, words);
    for (const queue of [...this.#queues.values()]) {
      const tail = doorbells[(queue.id * 2) << this.#dstrd] as number;
      // A driver that was told of completions that never were may ring for a queue that has gone. An honest one is never rung so.
      if (tail >= queue.entries) {
        if (!this.#lied)
          throw new Violation(`the driver rang ${tail} of ${queue.entries} entries of queue ${queue.id}`);
        continue;
      }
      while (queue.head !== tail) {
        worked = true;
        const entry = this.words(queue.submissions + queue.head * 64, 16);
        queue.head = (queue.head + 1) % queue.entries;
        if (entry !== null) this.#execute(queue, entry.slice());
      }
    }
    return worked;
  }

  /** The driver's memory at an address; null where it has none. */
  words(address: number, count: number): Uint32Array | null {
    const memory = this.memories.find(
      ({ iova, size }) => address >= iova && address + count * 4 <= iova + size,
    );
    if (memory === undefined || memory.buffer.byteLength === 0) return null;
    return new Uint32Array(memory.buffer, address - memory.iova, count);
  }

  /** Stores a completion where the controller is, whatever it says. */
  post(queueId: number, words: readonly [number, number, number, number]): void {
    this.#lied = true;
    const queue = this.#queues.get(queueId);
    if (queue !== undefined) this.#store(queue, words);
  }

  #allocate(size: number): Promise<DmaMemory> {
    if (this.#gone !== null) return Promise.reject(this.#gone);
    const last = this.memories.at(-1);
    const memory = new Memory(last === undefined ? ARENA_BASE : last.iova + last.size, size);
    this.memories.push(memory);
    return Promise.resolve(memory);
  }

  #configure(cc: number): void {
    const enabled = (cc & 1) !== 0;
    const shutdown = ((cc >>> 14) & 3) === 0 ? 0 : 8;
    this.#registers.setUint32(Register.csts, (enabled ? 1 : 0) | shutdown, true);
    if (!enabled) {
      this.#queues.clear();
      return;
    }
    if (this.#queues.has(0)) return;
    new Uint32Array(this.#doorbells.buffer).fill(0);
    const aqa = this.#registers.getUint32(Register.aqa, true);
    const address = (register: number): number => Number(this.#registers.getBigUint64(register, true));
    this.#add(0, address(Register.asq), address(Register.acq), (aqa & 0xfff) + 1);
  }

  #add(id: number, submissions: number, completions: number, entries: number): void {
    this.#queues.set(id, { id, submissions, completions, entries, head: 0, tail: 0, phase: 1 });
  }

  #execute(queue: ControllerQueue, entry: Uint32Array): void {
    this.#tally.messages++;
    const lie = this.#nextLie();
    const opcode = (entry[0] as number) & 0xff;
    const cid = (entry[0] as number) >>> 16;
    const result = queue.id === 0 ? this.#admin(opcode, entry, lie) : this.#io(opcode, entry);
    this.#complete(queue, cid, result, lie);
  }

  #nextLie(): Lie | null {
    const next = this.lies[0];
    if (next === undefined || next.left-- > 0) return null;
    this.lies.shift();
    this.#lied = true;
    this.#tally.see(`lie: ${next.lie.how}`);
    return next.lie;
  }

  /** Does an admin command, and gives dword 0 of its completion. */
  #admin(opcode: number, entry: Uint32Array, lie: Lie | null): number {
    const cdw10 = entry[10] as number;
    const id = cdw10 & 0xffff;
    const prp1 = (entry[6] as number) + (entry[7] as number) * 2 ** 32;
    switch (opcode) {
      case AdminOpcode.identify: {
        const data = identifyData(cdw10 & 0xff).slice();
        if (lie?.how === 'data') {
          const view = new DataView(data.buffer);
          view.setUint32(lie.at % 4092, lie.value, true);
          if (lie.value % 7 === 0) data.fill(lie.value);
        }
        this.words(prp1, 1024)?.set(new Uint32Array(data.buffer));
        return 0;
      }
      case AdminOpcode.getLogPage:
        if (lie?.how === 'data') this.words(prp1, 16)?.fill(lie.value);
        return 0;
      case AdminOpcode.setFeatures:
        return (cdw10 & 0xff) === 7 ? 0x0003_0003 : (entry[11] as number);
      case AdminOpcode.createIoCompletionQueue:
        if (id !== 0) this.#add(id, 0, prp1, (cdw10 >>> 16) + 1);
        return 0;
      case AdminOpcode.createIoSubmissionQueue: {
        const queue = this.#queues.get(id);
        if (queue === undefined || id === 0) return 0;
        this.#queues.set(id, { ...queue, submissions: prp1 });
        new Uint32Array(this.#doorbells.buffer)[(id * 2) << this.#dstrd] = 0;
        return 0;
      }
      case AdminOpcode.deleteIoCompletionQueue:
      case AdminOpcode.deleteIoSubmissionQueue:
        if (id !== 0) this.#queues.delete(id);
        return 0;
      default:
        return 0;
    }
  }

  /** Fills what is read with the number of its block, as far as it is in one or two pages. */
  #io(opcode: number, entry: Uint32Array): number {
    if (opcode !== NvmOpcode.read) return 0;
    const length = (((entry[12] as number) & 0xffff) + 1) * BLOCK;
    const prp1 = (entry[6] as number) + (entry[7] as number) * 2 ** 32;
    const first = Math.min(length, PAGE - (prp1 % PAGE));
    this.words(prp1, first / 4)?.fill(patternOf(entry[10] as number));
    return 0;
  }

  #complete(queue: ControllerQueue, cid: number, result: number, lie: Lie | null): void {
    const { how, value = 0 } = lie ?? {};
    const status = how === 'status' ? value & 0x7fff : 0;
    const words = [
      how === 'result' ? value : result,
      0,
      ((how === 'queue' ? value & 0xffff : queue.id) << 16) | (how === 'head' ? value & 0xffff : queue.head),
      (status << 17) | (how === 'cid' ? value & 0xffff : cid),
    ] as const;
    if (how === 'none') return;
    if (how === 'late') {
      this.#late.push({ queue, words });
      return;
    }
    this.#store(queue, words, how === 'phase');
    if (how === 'twice') this.#store(queue, words);
    if (how === 'unasked') this.#store(queue, [value, value, value, value]);
    this.msix.signal(queue.id % VECTORS);
  }

  #store(queue: ControllerQueue, words: readonly [number, number, number, number], wrongPhase = false): void {
    const target = this.words(queue.completions + queue.tail * 16, 4);
    if (target === null) return;
    target.set(words);
    const phase = wrongPhase ? 1 - queue.phase : queue.phase;
    target[3] = ((words[3] & ~0x1_0000) | (phase << 16)) >>> 0;
    this.#tally.messages++;
    queue.tail = (queue.tail + 1) % queue.entries;
    if (queue.tail === 0) queue.phase ^= 1;
  }
}
