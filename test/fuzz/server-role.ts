// SPDX-License-Identifier: MIT
/** The server is fuzzed: by a client whose messages, descriptors and answers are generated. */
import { fstatSync } from 'node:fs';
import { VfioUserError, errnoName } from '../../lib/errors';
import { Socket, closeFd } from '../../lib/native';
import { MAX_FDS_PER_MESSAGE } from '../../lib/native/message-window';
import { Command, HEADER_SIZE, HeaderFlag, commandName, isReply } from '../../lib/protocol';
import { CommandError, serve, type Server } from '../../lib/server';
import { Descriptors, MEMORY_BYTES, type FdKind } from './descriptors';
import type { Random } from './random';
import { frame, generateRequest, generateSequence, honestVersion, iovaOf, versionPayload } from './requests';
import { Violation, type Fixture, type Role, type Step, type Tally } from './role';
import { DEVICE, EverythingModel, MODEL_FAILURE, VENDOR } from './server-model';
import { MessageCutter, type Cut } from './stream';
import { turns, waitFor } from './waiting';

/** Bytes are sent, in parts with turns of the event loop between them when there are cuts. */
interface Send extends Step {
  readonly do: 'send';
  readonly bytes: Uint8Array;
  readonly fds?: readonly FdKind[];
  /** Where the bytes are cut. */
  readonly cuts?: readonly number[];
}
/** How the next DMA_READ or DMA_WRITE of the server is answered. Without one, honestly. */
interface Answer extends Step {
  readonly do: 'answer';
  readonly how: (typeof ANSWERS)[number];
  /** A value for the answer that is spoilt, and where it goes. */
  readonly value?: number;
  readonly at?: number;
}
/** A message on an ioregionfd that the server has given. */
interface IoRegion extends Step {
  readonly do: 'ioregion';
  readonly bytes: Uint8Array;
}
/** The file that is mapped gets another size. */
interface Resize extends Step {
  readonly do: 'resize';
  readonly size: number;
}
/** All replies are waited for. */
interface Wait extends Step {
  readonly do: 'wait';
}
/** The eventfd that was given for all vectors is signalled. */
interface Signal extends Step {
  readonly do: 'signal';
}
type ServerStep = Send | Answer | IoRegion | Resize | Wait | Signal;

const ANSWERS = [
  'honest',
  'error',
  'short',
  'long',
  'none',
  'twice',
  'id',
  'command',
  'flags',
  'patch',
  'late',
] as const;
const MAX_FIRST = HEADER_SIZE + 8 + 16384;
const MAX_MESSAGE = HEADER_SIZE + (1 << 16) + (1 << 20);
const STEPS = 120;

/** Errors that the server may tell its owner of: each is the client's doing, or the model's. */
const EXPECTED_REPORTS: readonly string[] = [
  'ERR_VFIO_USER_PROTOCOL',
  'ERR_VFIO_USER_MAPPING_LOST',
  'ERR_VFIO_USER_DMA',
  'ERR_VFIO_USER_REMOTE',
  'ERR_VFIO_USER_TIMEOUT',
  'ERR_VFIO_USER_DISCONNECTED',
  'ERR_VFIO_USER_CLOSED',
];

function generate(random: Random): ServerStep[] {
  const steps: ServerStep[] = [];
  const version = random.once(10) ? versionPayload(random) : honestVersion(random);
  if (!random.once(30)) {
    const fds: FdKind[] = random.once(30) ? ['eventfd'] : [];
    steps.push({ do: 'send', bytes: frame(Command.version, version, 1), fds }, { do: 'wait' });
  }
  const count = random.below(2 * STEPS);
  let id = 2;
  for (let i = 0; i < count; i++) {
    if (random.once(10)) steps.push({ do: 'wait' });
    if (random.once(25)) steps.push(answer(random));
    if (random.once(120)) steps.push({ do: 'resize', size: random.pick([0, 4096, MEMORY_BYTES]) });
    if (random.once(60)) steps.push({ do: 'signal' });
    if (random.once(40)) steps.push({ do: 'ioregion', bytes: ioRegionCommand(random) });
    if (random.once(30)) {
      for (const request of generateSequence(random, id)) steps.push({ do: 'send', ...request });
      id = (id + 32) & 0xffff;
    }
    // Ids are used again, while they are in flight too.
    id = random.once(30) ? random.below(8) : (id + 1) & 0xffff;
    const request = generateRequest(random, id);
    const { length } = request.bytes;
    steps.push(
      random.once(25) ? { do: 'send', ...request, cuts: cutsOf(random, length) } : { do: 'send', ...request },
    );
  }
  return steps;
}

function cutsOf(random: Random, length: number): number[] {
  const most = Math.min(random.pick([1, 1, 3, 16]), length);
  return Array.from({ length: most }, () => random.below(length + 1)).sort((a, b) => a - b);
}

function answer(random: Random): Answer {
  const how = random.once(3)
    ? random.pick(ANSWERS)
    : random.pick(['honest', 'patch', 'late', 'twice'] as const);
  if (how !== 'patch' && how !== 'flags' && how !== 'error') return { do: 'answer', how };
  return { do: 'answer', how, value: random.odd32(), at: random.below(5) * 4 };
}

function ioRegionCommand(random: Random): Uint8Array {
  const bytes = new Uint8Array(random.once(20) ? random.below(64) : 32);
  const view = new DataView(bytes.buffer);
  if (bytes.length < 32) return random.bytes(bytes.length);
  bytes[0] = random.once(12) ? random.u32() : random.below(2);
  bytes[1] = (random.once(12) ? random.u32() : random.below(4)) | (random.once(3) ? 0 : 0x10);
  view.setBigUint64(8, random.once(12) ? random.odd64() : BigInt(random.pick([3, 4])), true);
  view.setBigUint64(16, random.once(12) ? random.odd64() : BigInt(random.below(0x110)), true);
  view.setBigUint64(24, random.once(3) ? random.odd64() : iovaOf(random), true);
  return bytes;
}

/** Requests of one id and command that wait for their replies. */
interface Asked {
  readonly count: number;
  /** Of the request; null when there were several, so that it is not known which of them is answered. */
  readonly payload: Uint8Array | null;
}

/** One connection of the generated client. */
class FuzzedSession {
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
  /** The server may close the connection: it got too many descriptors with one message. */
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
      if (!this.negotiated && (header.flags & HeaderFlag.noReply) !== 0 && header.command !== Command.version)
        this.doomed = true;
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
    if (failed && !this.negotiated) this.doomed = true;
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

class ServerFixture implements Fixture {
  readonly #tally: Tally;
  readonly #descriptors = new Descriptors();
  readonly #model = new EverythingModel();
  #server: Server | null = null;
  readonly #faults: Violation[] = [];

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  async open(): Promise<this> {
    this.#server = await serve(`@vfio-user-fuzz-${process.pid}-${Math.random()}`, this.#model, {
      messageTimeout: 10,
      // A connection that has to end must not end by this.
      versionTimeout: Infinity,
      onError: (error) => {
        this.#report(error);
      },
    });
    return this;
  }

  async run(steps: readonly Step[]): Promise<void> {
    this.#descriptors.resize(MEMORY_BYTES);
    const server = this.#server as Server;
    const session = new FuzzedSession(server.path, this.#descriptors, this.#tally);
    this.#tally.connections++;
    try {
      for (const step of steps as readonly ServerStep[]) {
        await session.step(step);
        if (session.ended) break;
      }
      if (!session.ended) await session.settle();
      if (session.sound) await this.#isWell(session);
    } finally {
      session.close();
    }
    await this.rest();
    const [fault] = this.#faults.splice(0);
    if (fault !== undefined) throw fault;
  }

  async rest(): Promise<void> {
    await waitFor(() => this.#server?.client === null, 'the end of the client');
    await turns(2);
  }

  async close(): Promise<void> {
    await this.#server?.close();
    this.#model.close();
    this.#descriptors.close();
  }

  /** What is right is still served rightly, whatever came before. */
  async #isWell(session: FuzzedSession): Promise<void> {
    // Also ends a migration that failed.
    const reset = await session.ask(Command.deviceReset, new Uint8Array(0));
    const read = await session.ask(
      Command.regionRead,
      Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0),
    );
    if (reset?.errno !== 0)
      throw new Violation(`after the session, DEVICE_RESET gives errno ${reset?.errno}`);
    const ids = read?.payload.subarray(16) ?? new Uint8Array(0);
    if (!Buffer.from(ids).equals(Uint8Array.of(VENDOR & 0xff, VENDOR >> 8, DEVICE & 0xff, DEVICE >> 8)))
      throw new Violation(
        `after the session, vendor and device id read as ${Buffer.from(ids).toString('hex')} (errno ${read?.errno})`,
      );
  }

  #report(error: unknown): void {
    if (error instanceof VfioUserError && EXPECTED_REPORTS.includes(error.code)) {
      this.#tally.see(`reported ${error.code}`);
      return;
    }
    if (error instanceof CommandError || (error instanceof Error && error.message === MODEL_FAILURE)) return;
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#faults.push(new Violation(`the server reports what is no fault of its client: ${text}`));
  }
}

const served = Object.values(Command).filter((code) => code !== Command.dmaRead && code !== Command.dmaWrite);

export const serverRole: Role = {
  name: 'server',
  wanted: [
    ...served.map((code) => `${commandName(code)} ok`),
    ...served.map((code) => `${commandName(code)} EINVAL`),
    ...[
      'DMA_MAP EEXIST',
      'DMA_UNMAP ENOENT',
      'REGION_READ EIO',
      'REGION_READ EBUSY',
      'command unknown ENOTSUP',
    ],
    ...['DMA_READ', 'DMA_WRITE'].flatMap((name) => ANSWERS.map((how) => `${name} answered: ${how}`)),
    'ioregionfd command',
    'reported ERR_VFIO_USER_MAPPING_LOST',
  ],
  generate,
  open: (tally) => new ServerFixture(tally).open(),
};
