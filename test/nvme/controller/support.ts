// SPDX-License-Identifier: MIT
import type { Client, ClientMemory, ClientRange, MappedPlace } from '../../../lib/server/device-model';
import { createBackend } from '../../../lib/nvme/backends';
import { NvmeControllerModel, type NvmeControllerOptions } from '../../../lib/nvme/controller';
import { FunctionState } from '../../../lib/server/function-state';
import { type Command, encodeCommand } from '../../../lib/nvme/spec';
import { until } from '../../support/wait';

export { turns, until } from '../../support/wait';

/** A range of a {@link FakeMemory}. */
export interface FakeRange extends ClientRange {
  readonly bytes: Uint8Array;
}

/** The memory of a client, in this process. Ranges that are `distant` are reached by read and write only. */
export class FakeMemory implements ClientMemory {
  generation = 0;
  busMaster = true;
  ranges: FakeRange[] = [];
  /** Accesses by message, in words. */
  readonly messages: string[] = [];
  /** Awaited by each message. */
  gate: Promise<void> = Promise.resolve();

  add(
    iova: number | bigint,
    size: number,
    {
      distant = false,
      readable = true,
      writable = true,
      bytes = new Uint8Array(size),
    }: { distant?: boolean; readable?: boolean; writable?: boolean; bytes?: Uint8Array } = {},
  ): FakeRange {
    const buffer = distant ? null : (bytes.buffer as ArrayBuffer);
    const range = { iova: BigInt(iova), size, readable, writable, buffer, bytes };
    this.ranges.push(range);
    this.generation++;
    return range;
  }

  remove(range: FakeRange): void {
    this.ranges = this.ranges.filter((other) => other !== range);
    this.generation++;
  }

  place(iova: number | bigint, length: number, access: 'read' | 'write' | 'readwrite'): MappedPlace | null {
    const range = this.find(BigInt(iova), length);
    if (range === undefined || range.buffer === null) return null;
    if (access !== 'write' && !range.readable) return null;
    if (access !== 'read' && !range.writable) return null;
    const offset = range.bytes.byteOffset + Number(BigInt(iova) - range.iova);
    return { range, buffer: range.buffer, offset };
  }

  async read(iova: number | bigint, length: number): Promise<Uint8Array> {
    const bytes = this.bytes(iova, length);
    this.messages.push(`read ${Number(iova).toString(16)}+${length.toString(16)}`);
    await this.gate;
    return bytes.slice();
  }

  markDirty(): void {
    // Nobody logs dirty pages of this memory.
  }

  async write(iova: number | bigint, data: Uint8Array): Promise<void> {
    const bytes = this.bytes(iova, data.length);
    this.messages.push(`write ${Number(iova).toString(16)}+${data.length.toString(16)}`);
    await this.gate;
    bytes.set(data);
  }

  /** The bytes at an address, as the client sees them. */
  bytes(iova: number | bigint, length: number): Uint8Array {
    const range = this.find(BigInt(iova), length);
    if (range === undefined) throw new Error(`0x${iova.toString(16)} is not mapped`);
    const at = Number(BigInt(iova) - range.iova);
    return range.bytes.subarray(at, at + length);
  }

  words(iova: number, count: number): Uint32Array {
    const bytes = this.bytes(iova, count * 4);
    return new Uint32Array(bytes.buffer, bytes.byteOffset, count);
  }

  private find(iova: bigint, length: number): FakeRange | undefined {
    return this.ranges.find(
      (range) => iova >= range.iova && iova + BigInt(length) <= range.iova + BigInt(range.size),
    );
  }
}

/** A completion with its status in hexadecimal: type, code, and DNR if set. */
export interface Result {
  readonly cid: number;
  readonly status: string;
  readonly dw0: number;
  readonly sqHead: number;
  readonly sqId: number;
}

/** Addresses of the client's memory in {@link Host}: queues, then data. */
export const Address = {
  asq: 0x10_0000,
  acq: 0x11_0000,
  sq: 0x12_0000,
  cq: 0x14_0000,
  data: 0x20_0000,
  memory: 0x10_0000,
  memoryEnd: 0x80_0000,
} as const;

/** A queue pair as a host sees it. */
export interface HostQueue {
  readonly id: number;
  readonly sq: number;
  readonly cq: number;
  readonly sqEntries: number;
  readonly cqEntries: number;
  tail: number;
  head: number;
  phase: number;
}

/** A host that drives a controller through its regions, in one process. */
export class Host {
  readonly memory = new FakeMemory();
  readonly interrupts: number[] = [];
  readonly controller: NvmeControllerModel;
  /** What the server makes of the controller's function. */
  readonly state: FunctionState;
  readonly client: Client;
  readonly main: FakeRange;
  admin: HostQueue = this.queue(0, Address.asq, Address.acq, 32, 32);
  delivers = true;
  #cid = 0;

  /** @param options of a controller with 16 MiB of memory, or the controller */
  constructor(options: NvmeControllerOptions | NvmeControllerModel = {}) {
    this.controller =
      options instanceof NvmeControllerModel
        ? options
        : new NvmeControllerModel({
            ...(options.namespaces === undefined && {
              backend: createBackend({ kind: 'memory', size: 16 << 20 }),
            }),
            serial: 'TEST',
            ...options,
          });
    this.state = new FunctionState(this.controller);
    this.main = this.memory.add(Address.memory, Address.memoryEnd - Address.memory);
    this.client = {
      name: 'test',
      memory: this.memory,
      setInterrupt: (high, vector = 0) => high && (this.state.msix?.trigger(vector) ?? false),
      trigger: () => false,
      disconnect: () => {
        this.detach();
      },
      unplug: () => {
        this.state.unplugged = true;
        this.#follow();
      },
    };
    this.attach();
  }

  /** As the server does for a client. */
  attach(): void {
    const { state } = this;
    if (state.msix !== null) {
      state.msix.port = {
        send: (vector) => {
          this.interrupts.push(vector);
          return this.delivers;
        },
        pending: () => false,
      };
    }
    state.onConfigured = (effects) => {
      this.#follow();
      for (const effect of effects) {
        if (effect.kind === 'function-level-reset') void this.reset();
        else this.controller.configured(effect);
      }
    };
    this.controller.attach(this.client);
  }

  /** As the server does for DEVICE_RESET. */
  reset(): Promise<void> {
    this.state.reset();
    this.#follow();
    return this.controller.reset();
  }

  detach(): void {
    this.controller.detach();
    this.state.detach();
  }

  #follow(): void {
    const { msix, busMaster, config } = this.state;
    if (this.memory.busMaster !== busMaster) this.memory.generation++;
    this.memory.busMaster = busMaster;
    if (msix !== null) msix.held = !busMaster || config.msix?.functionMask === true;
  }

  queue(id: number, sq: number, cq: number, sqEntries: number, cqEntries: number): HostQueue {
    return { id, sq, cq, sqEntries, cqEntries, tail: 0, head: 0, phase: 1 };
  }

  read(offset: number, length: number, region = 0): Uint8Array {
    const data = new Uint8Array(length);
    void this.state.regions.get(region)?.read?.(offset, data);
    return data;
  }

  read32(offset: number, region = 0): number {
    return new DataView(this.read(offset, 4, region).buffer).getUint32(0, true);
  }

  write(offset: number, data: Uint8Array, region = 0): void {
    void this.state.regions.get(region)?.write?.(offset, data, false);
  }

  write32(offset: number, value: number, region = 0): void {
    this.write(offset, new Uint8Array(Uint32Array.of(value).buffer), region);
  }

  /** Sets up the admin queue and enables the controller. */
  enable(sqEntries = 32, cqEntries = 32): void {
    this.admin = this.queue(0, Address.asq, Address.acq, sqEntries, cqEntries);
    this.memory.bytes(Address.acq, cqEntries * 16).fill(0);
    this.write32(0x24, ((cqEntries - 1) << 16) | (sqEntries - 1));
    this.write32(0x28, Address.asq);
    this.write32(0x2c, 0);
    this.write32(0x30, Address.acq);
    this.write32(0x34, 0);
    this.write32(0x14, 0x0046_0001);
  }

  /** Stores a command without ringing the doorbell. Returns its id. */
  push(queue: HostQueue, command: Command): number {
    const cid = command.cid ?? (this.#cid = (this.#cid + 1) & 0xfff);
    encodeCommand(this.memory.words(queue.sq + queue.tail * 64, 16), 0, { ...command, cid });
    queue.tail = (queue.tail + 1) % queue.sqEntries;
    return cid;
  }

  ring(queue: HostQueue): void {
    this.write32(0x1000 + 8 * queue.id, queue.tail);
  }

  /** Takes the next completion, if there is one. */
  take(queue: HostQueue, consume = true): Result | undefined {
    const words = this.memory.words(queue.cq + queue.head * 16, 4);
    // NVMe base 2.0, 3.3.3.2. The word with the phase tag first: what is read after it is the new entry.
    const last = words[3]!;
    if (((last >>> 16) & 1) !== queue.phase) return undefined;
    const status = last >>> 17;
    queue.head = (queue.head + 1) % queue.cqEntries;
    if (queue.head === 0) queue.phase ^= 1;
    if (consume) this.write32(0x1004 + 8 * queue.id, queue.head);
    const text = `${((status >>> 8) & 7).toString(16).padStart(2, '0')}/${(status & 0xff).toString(16).padStart(2, '0')}`;
    return {
      cid: last & 0xffff,
      status: (status & 0x4000) !== 0 ? `${text} DNR` : text,
      dw0: words[0]!,
      sqHead: words[2]! & 0xffff,
      sqId: words[2]! >>> 16,
    };
  }

  async completion(queue: HostQueue): Promise<Result> {
    let result: Result | undefined;
    await until(() => (result = this.take(queue)) !== undefined, 'a completion');
    return result as Result;
  }

  async run(queue: HostQueue, command: Command): Promise<Result> {
    const cid = this.push(queue, command);
    this.ring(queue);
    const result = await this.completion(queue);
    expect(result.cid).toBe(cid);
    return result;
  }

  /** Runs an admin command; its status and dword 0. */
  async adminCommand(command: Command): Promise<Result> {
    return this.run(this.admin, { prp1: Address.data, ...command });
  }

  /** Creates queue pair `id`, with interrupts on vector `id`. */
  async createQueues(id = 1, sqEntries = 16, cqEntries = 16): Promise<HostQueue> {
    const offset = (id - 1) * 0x4000;
    const queue = this.queue(id, Address.sq + offset, Address.cq + offset, sqEntries, cqEntries);
    this.memory.bytes(queue.cq, cqEntries * 16).fill(0);
    const cq = await this.adminCommand({
      opcode: 0x05,
      prp1: queue.cq,
      cdw10: ((cqEntries - 1) << 16) | id,
      cdw11: ((id << 16) | 3) >>> 0,
    });
    expect(cq.status).toBe('00/00');
    const sq = await this.adminCommand({
      opcode: 0x01,
      prp1: queue.sq,
      cdw10: ((sqEntries - 1) << 16) | id,
      cdw11: (id << 16) | 1,
    });
    expect(sq.status).toBe('00/00');
    return queue;
  }

  close(): void {
    this.controller.close();
  }
}
