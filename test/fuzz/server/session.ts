// SPDX-License-Identifier: MIT
import { fstatSync } from 'node:fs';
import { VfioUserError, errnoName } from '../../../lib/errors';
import { Socket, closeFd } from '../../../lib/native';
import { MAX_FDS_PER_MESSAGE } from '../../../lib/native/message-window';
import { Command, HEADER_SIZE, HeaderFlag, commandName, isReply } from '../../../lib/protocol';
import { type Descriptors, type FdKind } from '../descriptors';
import { frame } from '../requests';
import { Violation, type Tally } from '../role';
import { MessageCutter, type Cut } from '../stream';
import { turns, waitFor } from '../waiting';
import { type Answer, type Send, type ServerStep } from './steps';

const MAX_FIRST = HEADER_SIZE + 8 + 16384;
const MAX_MESSAGE = HEADER_SIZE + (1 << 16) + (1 << 20);
/** Requests of one id and command that wait for their replies. */
interface Asked {
  readonly count: number;
  /** Of the request; null when there were several, so that it is not known which of them is answered. */
  readonly payload: Uint8Array | null;
}

/** One connection of the generated client. */
export class FuzzedSession {
  readonly #socket: Socket;
  readonly #descriptors: Descriptors;
  readonly #tally: Tally;
  readonly #sent = new MessageCutter();
  readonly #heard = new MessageCutter();
  readonly #twinHeard = new MessageCutter();
  readonly #buffer = new Uint8Array(1 << 16);
  /** What waits for a reply, by id and command. */
  readonly #waiting = new Map<number, Asked>();
  #outstanding = 0;
  readonly #answers: Answer[] = [];
  /** Replies that wait for the end of a message of ours. */
  readonly #deferred: Uint8Array[] = [];
  /** Replies that wait for others to overtake them. */
  readonly #late: { socket: Socket; bytes: Uint8Array }[] = [];
  /** A message of ours has been sent in part. */
  #midway = false;
  #twin: Socket | null = null;
  #ioRegion: Socket | null = null;
  /** VERSION has been answered without an error. */
  negotiated = false;
  /** Something was sent after which the server has to close the connection, or may. */
  doomed = false;
  ended = false;
  /** The server may close the connection: it got too many descriptors with one message, or a VERSION that it does not answer. */
  mayEnd = false;
  #descriptorsOfMessage = 0;
  /** Payload of the last reply to the question that {@link ask} sends. */
  #answered: { errno: number; payload: Uint8Array } | null = null;
  #asked = -1;

  constructor(path: string, descriptors: Descriptors, tally: Tally) {
    this.#socket = Socket.connect(path);
    this.#descriptors = descriptors;
    this.#tally = tally;
  }

  async step(step: ServerStep): Promise<void> {
    switch (step.do) {
      case 'send':
        await this.#send(step);
        return;
      case 'answer':
        this.#answers.push(step);
        return;
      case 'resize':
        this.#descriptors.resize(step.size);
        return;
      case 'signal':
        this.#descriptors.event.signal();
        return;
      case 'ioregion':
        this.#sendIoRegion(step.bytes);
        return;
      case 'wait':
        await this.#wait();
    }
  }

  /** Sends a request with an id that nothing else uses, and gives errno and payload of the reply; null when the server has closed. */
  async ask(command: number, payload: Uint8Array): Promise<{ errno: number; payload: Uint8Array } | null> {
    this.#asked = this.#freeId(command);
    this.#answered = null;
    await this.#send({ do: 'send', bytes: frame(command, payload, this.#asked) });
    await waitFor(() => this.#pump() || this.#answered !== null, `the reply to ${commandName(command)}`);
    return this.#answered;
  }

  /** Whether the server can still make sense of what is sent. */
  get sound(): boolean {
    return !this.ended && !this.doomed && this.negotiated && this.#sent.partial === 0;
  }

  /** Waits for the end of the connection, when the server has to close it. */
  async settle(): Promise<void> {
    await this.#wait();
    if (this.doomed) await waitFor(() => this.#pump(), 'the end of a connection that broke the protocol');
  }

  close(): void {
    this.#socket.close();
    this.#twin?.close();
    this.#ioRegion?.close();
  }

  async #send({ bytes, fds = [], cuts = [] }: Send): Promise<void> {
    // What the server accepts depends on the reply to VERSION.
    if (!this.negotiated) await this.#wait();
    if (this.ended || this.doomed) return;
    this.#tally.messages++;
    this.#note(bytes);
    // One message may take in several, by a size that is too large.
    this.#descriptorsOfMessage = this.#sent.partial > 0 ? this.#descriptorsOfMessage + fds.length : 0;
    if (this.#descriptorsOfMessage > MAX_FDS_PER_MESSAGE / 2) this.mayEnd = true;
    this.#midway = true;
    await this.#sendParts(bytes, cuts, fds);
    this.#midway = false;
    for (const reply of this.#deferred.splice(0)) this.#reply(this.#socket, reply);
  }

  async #sendParts(bytes: Uint8Array, cuts: readonly number[], fds: readonly FdKind[]): Promise<void> {
    let from = 0;
    let numbers: number[] | null = fds.map((kind) => this.#descriptors.get(kind));
    for (const to of [...cuts, bytes.length]) {
      if (to <= from) continue;
      const part = bytes.subarray(from, to);
      for (let at = 0; at < part.length;) {
        const taken = this.#trySend(part, at, numbers);
        if (taken < 0) return;
        if (taken > 0) numbers = null;
        at += taken;
        if (at < part.length) await turns(1);
      }
      from = to;
      if (to < bytes.length) await turns(1);
    }
  }

  #trySend(part: Uint8Array, at: number, fds: number[] | null): number {
    // What waits must be read: the server does not read on when too many replies wait.
    if (this.#pump()) return -1;
    try {
      return this.#socket.send(part.subarray(at), part.length - at, null, 0, fds);
    } catch (error) {
      // Descriptors in flight are limited for the whole user (ETOOMANYREFS).
      if (error instanceof VfioUserError && error.errnoName === 'ETOOMANYREFS') return 0;
      this.#end();
      return -1;
    }
  }

  /** Foresees what the server has to make of the bytes. */
  #note(bytes: Uint8Array): void {
    const cuts: Cut[] = [];
    if (!this.#sent.push(bytes, this.negotiated ? MAX_MESSAGE : MAX_FIRST, cuts)) this.doomed = true;
    for (const { header, payload } of cuts) {
      if (isReply(header.flags)) continue;
      // Anything but VERSION ends a connection that has not negotiated; whether a posted VERSION succeeds cannot be seen.
      if (!this.negotiated && (header.flags & HeaderFlag.noReply) !== 0) {
        if (header.command === Command.version) this.mayEnd = true;
        else if (!this.mayEnd) this.doomed = true;
      }
      if ((header.flags & HeaderFlag.noReply) !== 0) continue;
      const key = header.id * 65536 + header.command;
      const asked = this.#waiting.get(key);
      this.#waiting.set(
        key,
        asked === undefined ? { count: 1, payload } : { count: asked.count + 1, payload: null },
      );
      this.#outstanding++;
    }
  }

  async #wait(): Promise<void> {
    this.#tally.alive();
    for (const { socket, bytes } of this.#late.splice(0)) this.#reply(socket, bytes);
    await waitFor(() => this.#pump() || this.#outstanding === 0, 'the replies to all requests');
    for (const { socket, bytes } of this.#late.splice(0)) this.#reply(socket, bytes);
  }

  /** Reads what is there, and answers. Returns whether the connection has ended. */
  #pump(): boolean {
    if (!this.ended) this.#read(this.#socket, this.#heard);
    if (!this.ended && this.#twin !== null) this.#read(this.#twin, this.#twinHeard);
    this.#drainIoRegion();
    return this.ended;
  }

  #read(socket: Socket, cutter: MessageCutter): void {
    for (;;) {
      let count;
      try {
        count = socket.receive(this.#buffer, 0, this.#buffer.length);
      } catch {
        count = -1; // ECONNRESET: it closed with unread bytes.
      }
      const fds = socket.takeFds();
      if (count > 0) {
        const messages: Cut[] = [];
        const sound = cutter.push(this.#buffer.subarray(0, count), 1 << 22, messages);
        if (!sound) throw new Violation('the server sent what is no message');
        for (const message of messages) this.#hear(socket, message, fds);
      }
      for (const fd of fds) closeFd(fd);
      if (count < 0) this.#end();
      if (count <= 0 || this.ended) return;
    }
  }

  #end(): void {
    this.ended = true;
    if (this.doomed || this.mayEnd) return;
    // Before the negotiation the server closes at the first mistake.
    if (this.negotiated)
      throw new Violation('the server closed a connection that had not broken the protocol');
  }

  #hear(socket: Socket, message: Cut, fds: number[]): void {
    const { header, payload } = message;
    if (!isReply(header.flags)) {
      this.#serve(socket, message);
      return;
    }
    const { id, command, flags, error } = header;
    const what = `the reply to ${commandName(command)} (id ${id})`;
    const key = id * 65536 + command;
    const asked = this.#waiting.get(key);
    if (asked === undefined) throw new Violation(`${what} answers nothing that was asked`);
    if (asked.count === 1) this.#waiting.delete(key);
    else this.#waiting.set(key, { ...asked, count: asked.count - 1 });
    this.#outstanding--;
    const failed = (flags & HeaderFlag.error) !== 0;
    if ((flags & ~HeaderFlag.error) !== HeaderFlag.reply) throw new Violation(`${what} has flags ${flags}`);
    if (failed !== (error !== 0)) throw new Violation(`${what} has flags ${flags} and errno ${error}`);
    if (failed && payload.length > 0) throw new Violation(`${what} is an error with ${payload.length} bytes`);
    const name = commandName(command);
    this.#tally.see(
      `${name.startsWith('command ') ? 'command unknown' : name} ${failed ? errnoName(error) : 'ok'}`,
    );
    if (id === this.#asked) this.#answered = { errno: error, payload };
    if (failed && !this.negotiated && !this.mayEnd) this.doomed = true;
    if (failed) return;
    if (asked.payload !== null) checkReply(what, command, asked.payload, payload);
    if (command === Command.version) {
      this.negotiated = true;
      if (payload.includes(Buffer.from('fd_index').readUInt8()) && fds.length > 0)
        this.#takeTwin(payload, fds);
    } else if (command === Command.deviceGetRegionIoFds) this.#takeIoRegion(fds);
  }

  #takeTwin(payload: Uint8Array, fds: number[]): void {
    if (!Buffer.from(payload).includes('fd_index')) return;
    this.#twin = Socket.fromFd(fds.shift() as number);
  }

  #takeIoRegion(fds: number[]): void {
    const at = fds.findIndex((fd) => fstatSync(fd).isSocket());
    if (at < 0) return;
    this.#ioRegion?.close();
    this.#ioRegion = Socket.fromFd(fds.splice(at, 1)[0] as number);
  }

  #sendIoRegion(bytes: Uint8Array): void {
    if (this.#ioRegion === null || bytes.length === 0) return;
    this.#tally.messages++;
    this.#tally.see('ioregionfd command');
    try {
      this.#ioRegion.send(bytes, bytes.length, null, 0, null);
    } catch {
      this.#ioRegion.close(); // What no kernel sends ends the service.
      this.#ioRegion = null;
    }
  }

  #drainIoRegion(): void {
    if (this.#ioRegion === null) return;
    try {
      if (this.#ioRegion.receive(this.#buffer, 0, this.#buffer.length) >= 0) return;
    } catch {
      // It ended.
    }
    this.#ioRegion.close();
    this.#ioRegion = null;
  }

  /** Answers a DMA_READ or DMA_WRITE of the server, as the next answer tells. */
  #serve(socket: Socket, { header, payload }: Cut): void {
    const { id, command, flags } = header;
    if (command !== Command.dmaRead && command !== Command.dmaWrite)
      throw new Violation(`the server sent ${commandName(command)}, which is not its to send`);
    if (flags !== 0 || payload.length < 16)
      throw new Violation(`${commandName(command)} of the server is malformed`);
    this.#tally.messages++;
    const {
      how,
      value = 0,
      at = 0,
    } = this.#answers.shift() ?? ({ do: 'answer', how: 'honest' } satisfies Answer);
    this.#tally.see(`${commandName(command)} answered: ${how}`);
    const count = command === Command.dmaRead ? new DataView(payload.buffer).getUint32(8, true) : 0;
    let body = new Uint8Array(16 + count);
    body.set(payload.subarray(0, 16));
    if (how === 'short') body = body.slice(0, at + 3);
    if (how === 'long') body = new Uint8Array(body.length + 64);
    if (how === 'patch' && at + 4 <= body.length) new DataView(body.buffer).setUint32(at, value, true);
    const error = how === 'error';
    const reply = frame(
      how === 'command' ? command ^ 1 : command,
      error ? new Uint8Array(0) : body,
      how === 'id' ? id ^ 1 : id,
      {
        // Bits that say nothing to a reader.
        flags: how === 'flags' ? 1 | (value & 0xffff_ffc0) : error ? 0x21 : 1,
        errno: error ? value : 0,
      },
    );
    if (how === 'none') return;
    if (how === 'late') {
      this.#late.push({ socket, bytes: reply });
      return;
    }
    this.#reply(socket, reply);
    if (how === 'twice') this.#reply(socket, reply);
  }

  /** A reply that cannot leave now never does: the server has to cope. */
  #reply(socket: Socket, bytes: Uint8Array): void {
    if (this.ended || socket.closed) return;
    // Not in the middle of a message of our own.
    if (socket === this.#socket && this.#midway) {
      this.#deferred.push(bytes);
      return;
    }
    if (socket === this.#socket && this.#sent.partial > 0) return;
    try {
      let at = 0;
      for (let tries = 0; at < bytes.length && tries < 1000; tries++)
        at += socket.send(bytes.subarray(at), bytes.length - at, null, 0, null);
      if (at > 0 && at < bytes.length) this.doomed = true;
    } catch {
      this.#end();
    }
  }

  #freeId(command: number): number {
    for (let id = 0xff00; ; id--) if (!this.#waiting.has(id * 65536 + command)) return id;
  }
}

/** Sizes of replies that are always the same; -1 for others. */
const REPLY_BYTES: Readonly<Record<number, number>> = {
  [Command.dmaMap]: 0,
  [Command.deviceGetInfo]: 16,
  [Command.deviceGetIrqInfo]: 16,
  [Command.deviceSetIrqs]: 0,
  [Command.regionWrite]: 16,
  [Command.deviceReset]: 0,
  [Command.regionWriteMulti]: 8,
  [Command.migDataWrite]: 0,
};

/** What the specification says of a reply without an error. */
function checkReply(what: string, command: number, request: Uint8Array, reply: Uint8Array): void {
  const expected = REPLY_BYTES[command];
  if (expected !== undefined && reply.length !== expected)
    throw new Violation(`${what} has ${reply.length} bytes, expected ${expected}`);
  if (command !== Command.regionRead && command !== Command.regionWrite) return;
  const count = new DataView(request.buffer).getUint32(12, true);
  if (command === Command.regionRead && reply.length !== 16 + count)
    throw new Violation(`${what} has ${reply.length} bytes, expected 16 and ${count} of data`);
  if (!Buffer.from(reply.subarray(0, 16)).equals(request.subarray(0, 16)))
    throw new Violation(`${what} does not repeat offset, region and count`);
}
