// SPDX-License-Identifier: MIT
import type { NvmeControllerModel } from '../../../lib/nvme/controller';
import { AdminOpcode, NvmOpcode } from '../../../lib/nvme/spec';
import { PciConfig, PciRegion } from '../../../lib/pci';
import { CommandError } from '../../../lib/server';
import { FunctionState } from '../../../lib/server/function-state';
import { HostMemory, LAYOUT, QUEUES } from './memory';
import { queuePlace } from './commands';
import { Violation, type Tally } from '../role';
import { turns, waitFor } from '../waiting';
import { entryOf, type Access, type HostStep } from './steps';

/** A submission queue as the host sees it. */
interface HostQueue {
  readonly address: number;
  readonly entries: number;
  readonly completions: CompletionPlace;
  tail: number;
  /** Entries that were stored and not rung. */
  stored: number;
  /** The commands that were rung and are not completed, by their ids. */
  readonly inFlight: Map<number, Uint32Array>;
}
interface CompletionPlace {
  readonly id: number;
  readonly address: number;
  readonly entries: number;
  head: number;
  phase: number;
}

/** A host that drives the controller by its regions. */
export class FuzzedHost {
  readonly memory = new HostMemory();
  readonly #model: NvmeControllerModel;
  readonly #function: FunctionState;
  readonly #tally: Tally;
  readonly #submissions = new Map<number, HostQueue>();
  readonly #completions = new Map<number, CompletionPlace>();
  /** Commands that create a completion queue where there was one when they were stored. */
  readonly #unclean = new WeakSet<Uint32Array>();
  #cid = 0;
  /** The host did what it must not: what the controller completes cannot be told any more. */
  #lax = true;

  constructor(model: NvmeControllerModel, tally: Tally) {
    this.#model = model;
    this.#tally = tally;
    this.#function = new FunctionState(model);
    this.#function.onConfigured = (effects) => {
      this.memory.busMaster = this.#function.busMaster;
      for (const effect of effects) model.configured(effect);
    };
    for (const index of LAYOUT.keys()) this.memory.map(index);
  }

  async step(step: HostStep): Promise<void> {
    this.#tally.messages++;
    switch (step.do) {
      case 'submit':
        this.#submit(step.queue, step.entry);
        return;
      case 'ring':
        this.#ring(step.queue);
        return;
      case 'doorbell':
        this.#lax = true;
        this.#write(0, 0x1000 + 4 * step.index, word(step.value));
        return;
      case 'write':
      case 'read':
        this.#lax ||= step.do === 'write';
        this.#access(step);
        return;
      case 'store':
        this.memory.bytes(step.address, step.bytes.length).set(step.bytes);
        return;
      case 'map':
        this.memory.map(step.range);
        this.#model.mapped();
        return;
      case 'unmap':
        this.#lax ||= step.range === 0;
        this.#unmap(step.range);
        return;
      case 'bring up':
        await this.bringUp(step.entries, step.careless);
        return;
      case 'function reset':
        this.#forget();
        await this.#model.reset();
        return;
      case 'wait':
        await this.wait();
    }
  }

  /** Resets the controller, and creates its queues. */
  async bringUp(entries: readonly number[], careless = false): Promise<void> {
    for (const index of LAYOUT.keys()) if (this.memory.range(index) === null) this.memory.map(index);
    this.#forget();
    this.#write(PciRegion.config, PciConfig.command, Uint8Array.of(6, 0));
    this.#write(0, 0x14, word(0));
    // Commands that were under way may take a while.
    await waitFor(() => (this.#read32(0x1c) & 1) === 0, 'the controller to become disabled');
    this.memory.bytes(QUEUES, 0x8_0000).fill(0);
    const count = entries[0] ?? 16;
    this.#write(0, 0x24, word(((count - 1) << 16) | (count - 1)));
    this.#write(0, 0x28, Uint8Array.from([...word(QUEUES), ...word(0)]));
    this.#write(0, 0x30, Uint8Array.from([...word(QUEUES + 0x8000), ...word(0)]));
    this.#write(0, 0x14, word(0x46_0001));
    await waitFor(() => (this.#read32(0x1c) & 1) === 1, 'the controller to become ready');
    this.#lax = careless;
    this.#addCompletions(0, QUEUES + 0x8000, count);
    this.#addSubmissions(0, QUEUES, count, 0);
    for (const [id, each] of entries.entries()) {
      if (id === 0) continue;
      for (const opcode of [AdminOpcode.createIoCompletionQueue, AdminOpcode.createIoSubmissionQueue]) {
        const completion = opcode === AdminOpcode.createIoCompletionQueue;
        const words = new Uint32Array(16);
        words[0] = opcode;
        words[6] = queuePlace(QUEUES, id, completion);
        words[10] = ((each - 1) << 16) | id;
        words[11] = (id << 16) | (completion ? 3 : 1);
        this.#submit(0, entryOf(words));
        this.#ring(0);
        await this.wait();
      }
    }
  }

  /** Runs a command by itself. Returns the status of its completion. */
  async run(queue: number, words: Uint32Array): Promise<number> {
    this.#submit(queue, entryOf(words));
    const cid = this.#cid;
    this.#ring(queue);
    this.#lastStatus = -1;
    await waitFor(() => {
      this.#reap();
      return !(this.#submissions.get(queue)?.inFlight.has(cid) ?? false);
    }, 'the completion of a command');
    return this.#lastStatus;
  }

  #lastStatus = -1;

  /** Waits until all commands are completed, as far as that can be expected. */
  async wait(): Promise<void> {
    this.#tally.alive();
    for (const queue of this.#submissions.keys()) this.#ring(queue);
    const done = (): boolean => {
      this.#reap();
      if (this.#lax || this.#model.fault !== null) return true;
      for (const { inFlight } of this.#submissions.values())
        for (const words of inFlight.values()) if (!isHeld(words)) return false;
      return true;
    };
    if (this.#lax) await turns(3);
    await waitFor(done, 'completions of all commands');
  }

  #submit(queueId: number, entry: Uint8Array): void {
    const queue = this.#submissions.get(queueId);
    // One entry stays free, and no command id is used twice at a time.
    if (queue === undefined || queue.inFlight.size + queue.stored >= queue.entries - 1) {
      this.#ring(queueId);
      return;
    }
    const target = this.memory.words(queue.address + queue.tail * 64, 16);
    target.set(new Uint32Array(entry.slice().buffer));
    do this.#cid = (this.#cid + 1) & 0x7fff;
    while (queue.inFlight.has(this.#cid));
    target[0] = (((target[0] as number) & 0xffff) | (this.#cid << 16)) >>> 0;
    const command = target.slice();
    queue.inFlight.set(this.#cid, command);
    if (queueId === 0) this.#prepareMemory(command);
    queue.tail = (queue.tail + 1) % queue.entries;
    this.#tally.see(opcodeLabel(queueId, entry[0] as number));
  }

  /** A host clears the memory of a completion queue: what was there before would be taken for completions. */
  #prepareMemory(command: Uint32Array): void {
    if (((command[0] as number) & 0xff) !== AdminOpcode.createIoCompletionQueue) return;
    const id = (command[10] as number) & 0xffff;
    if (id === 0 || id >= 16) return;
    if (this.#completions.has(id)) this.#unclean.add(command);
    else this.memory.bytes(queuePlace(QUEUES, id, true), 64 * 16).fill(0);
  }

  #ring(queueId: number): void {
    const queue = this.#submissions.get(queueId);
    if (queue === undefined) return;
    queue.stored = 0;
    this.#write(0, 0x1000 + 8 * queueId, word(queue.tail));
    this.#reap();
  }

  #reap(): void {
    for (const place of this.#completions.values()) this.#reapQueue(place);
  }

  #reapQueue(place: CompletionPlace): void {
    const words = this.memory.words(place.address, place.entries * 4);
    let count = 0;
    for (; count < place.entries; count++) {
      const at = place.head * 4;
      const last = words[at + 3] as number;
      if (((last >>> 16) & 1) !== place.phase) break;
      place.head = (place.head + 1) % place.entries;
      if (place.head === 0) place.phase ^= 1;
      this.#completed(place, words[at + 2] as number, last);
    }
    if (count > 0) this.#write(0, 0x1004 + 8 * place.id, word(place.head));
  }

  #completed(place: CompletionPlace, queueWord: number, last: number): void {
    const cid = last & 0xffff;
    const status = last >>> 17;
    const queue = this.#submissions.get(queueWord >>> 16);
    const command = queue?.inFlight.get(cid);
    queue?.inFlight.delete(cid);
    this.#lastStatus = status;
    this.#tally.see(
      `status ${((status >>> 8) & 7).toString(16)}/${(status & 0xff).toString(16).padStart(2, '0')}`,
    );
    if (this.#lax) return;
    const what = `completion of command ${cid} of queue ${queueWord >>> 16} in completion queue ${place.id}`;
    if (queue === undefined || command === undefined)
      throw new Violation(`${what}: no such command is in flight`);
    if (queue.completions !== place) throw new Violation(`${what}: the wrong completion queue`);
    if ((queueWord & 0xffff) >= queue.entries)
      throw new Violation(`${what}: head ${queueWord & 0xffff} of ${queue.entries}`);
    if (queueWord >>> 16 === 0 && status === 0) this.#adminDone(command);
  }

  /** Follows queues that come and go. */
  #adminDone(command: Uint32Array): void {
    const cdw10 = command[10] as number;
    const id = cdw10 & 0xffff;
    const address = (command[6] as number) + (command[7] as number) * 2 ** 32;
    const entries = (cdw10 >>> 16) + 1;
    switch ((command[0] as number) & 0xff) {
      case AdminOpcode.createIoCompletionQueue:
        this.#tally.see('queue created');
        // Where queues overlap with others, or with data, nothing can be told.
        if (
          address !== queuePlace(QUEUES, id, true) ||
          id >= 16 ||
          entries > 64 ||
          this.#unclean.has(command)
        )
          this.#lax = true;
        else this.#addCompletions(id, address, entries);
        return;
      case AdminOpcode.createIoSubmissionQueue:
        if (address !== queuePlace(QUEUES, id, false) || id >= 16 || entries > 64) this.#lax = true;
        else this.#addSubmissions(id, address, entries, (command[11] as number) >>> 16);
        return;
      case AdminOpcode.deleteIoCompletionQueue:
        this.#completions.delete(id);
        return;
      case AdminOpcode.deleteIoSubmissionQueue:
        this.#tally.see('queue deleted');
        // What was completed before the deletion is in the completion queue.
        this.#reapQueue((this.#submissions.get(id) as HostQueue).completions);
        this.#submissions.delete(id);
    }
  }

  #addCompletions(id: number, address: number, entries: number): void {
    // Entries of a queue that was here before would be taken for new ones; the controller may have written some already.
    this.#completions.set(id, { id, address, entries, head: 0, phase: 1 });
  }

  #addSubmissions(id: number, address: number, entries: number, completionId: number): void {
    const completions = this.#completions.get(completionId);
    if (completions === undefined) {
      this.#lax = true;
      return;
    }
    this.#submissions.set(id, { address, entries, completions, tail: 0, stored: 0, inFlight: new Map() });
  }

  #forget(): void {
    this.#submissions.clear();
    this.#completions.clear();
    this.#lax = true;
  }

  #unmap(index: number): void {
    const range = this.memory.range(index);
    if (range === null) return;
    this.#model.unmapping(range);
    this.memory.unmap(index);
  }

  #access({ do: kind, region, offset, bytes }: Access): void {
    const { size = 0 } = this.#function.regions.get(region) ?? {};
    // The server has checked the bounds.
    if (offset + bytes.length > size) return;
    if (kind === 'write') this.#write(region, offset, bytes);
    else this.#read(region, offset, bytes.slice());
  }

  #write(region: number, offset: number, bytes: Uint8Array): void {
    try {
      const done = this.#function.regions.get(region)?.write?.(offset, bytes, false);
      void done?.catch(refused);
    } catch (error) {
      refused(error);
    }
  }

  #read(region: number, offset: number, into: Uint8Array): void {
    try {
      void this.#function.regions.get(region)?.read?.(offset, into);
    } catch (error) {
      refused(error);
    }
  }

  #read32(offset: number): number {
    const bytes = new Uint8Array(4);
    this.#read(0, offset, bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  }
}

export const OPCODES: Readonly<Record<'admin' | 'I/O', readonly number[]>> = {
  admin: Object.values(AdminOpcode),
  'I/O': Object.values(NvmOpcode),
};

export function opcodeLabel(queueId: number, opcode: number): string {
  const set = queueId === 0 ? 'admin' : 'I/O';
  const known = OPCODES[set].includes(opcode);
  return `${set} opcode ${known ? opcode.toString(16).padStart(2, '0') : 'unknown'}`;
}

/** An Asynchronous Event Request is completed when there is an event. */
function isHeld(words: Uint32Array): boolean {
  return ((words[0] as number) & 0xff) === AdminOpcode.asynchronousEventRequest;
}

function refused(error: unknown): void {
  if (!(error instanceof CommandError)) throw error;
}

function word(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}
