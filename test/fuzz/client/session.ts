// SPDX-License-Identifier: MIT
import { connect, type VfioUserDevice } from '../../../lib/client';
import { errnoName } from '../../../lib/errors';
import { EventFd, Socket, closeFd, duplicateFd } from '../../../lib/native';
import { Command, HeaderFlag, commandName, encodeIoRegionResponse, isReply } from '../../../lib/protocol';
import { CallsUnderWay } from '../calls-under-way';
import { CALLS, SYNC_CALLS, type Program } from './calls';
import type { Descriptors } from '../descriptors';
import { type HonestDevice, patternAt } from './honest-device';
import { frame } from '../requests';
import { Violation, type Tally } from '../role';
import { MessageCutter, type Cut } from '../stream';
import { turns, waitFor } from '../waiting';
import { spoiltReply } from './spoilt-reply';
import { type Answer, type Call, type CallSync, type ClientStep, type Dma } from './steps';

/** How long a message of the client may wait: some are never answered. */
const MESSAGE_TIMEOUT = 15;

/** One connection, and the program at its other end. */
export class FuzzedClient {
  readonly #tally: Tally;
  readonly #descriptors: Descriptors;
  readonly #honest: HonestDevice;
  readonly #socket: Socket;
  readonly #endpoint: { fd: number };
  readonly #requests = new MessageCutter();
  readonly #twinRequests = new MessageCutter();
  /** What was sent, as the client has to cut it. */
  readonly #sent = new MessageCutter();
  readonly #buffer = new Uint8Array(1 << 16);
  readonly #answers: { answer: Answer; left: number }[] = [];
  readonly #late: Uint8Array[] = [];
  readonly #calls: CallsUnderWay;
  readonly #events: EventFd[] = [];
  /** Our commands that wait for a reply, by id. */
  readonly #commands = new Map<number, { command: number; count: number }>();
  #nextCommand = 1;
  #lastId = 0;
  #program: Program | null = null;
  /** Something was sent after which the client has to close, or may. */
  #doomed = false;
  #spoilt = false;

  constructor(honest: HonestDevice, descriptors: Descriptors, tally: Tally) {
    this.#honest = honest;
    this.#descriptors = descriptors;
    this.#tally = tally;
    this.#calls = new CallsUnderWay(tally);
    const [near, far] = Socket.pair();
    this.#socket = near;
    // The client gets a descriptor of its own.
    this.#endpoint = { fd: duplicateFd(far.fd) };
    far.close();
  }

  async step(step: ClientStep): Promise<void> {
    switch (step.do) {
      case 'connect':
        await this.#connect(step.twin);
        return;
      case 'answer':
        this.#answers.push({ answer: step, left: step.skip });
        return;
      case 'call':
        if (this.#program !== null) this.#calls.start(step.call, () => this.#run(step));
        return;
      case 'call sync':
        await this.#callSync(step);
        return;
      case 'dma':
        this.#sendDma(step);
        return;
      case 'send':
        this.#spoilt = true;
        this.#send(
          step.bytes,
          (step.fds ?? []).map((kind) => this.#descriptors.get(kind)),
        );
        return;
      case 'resize':
        this.#descriptors.resize(step.size);
        return;
      case 'signal':
        for (const event of this.#events) event.signal();
        await turns(1);
        return;
      case 'hang up':
        this.#socket.close();
        return;
      case 'wait':
        await this.wait();
    }
  }

  /** Everything that was called has to end: what is not answered ends by its time-out. */
  async wait(): Promise<void> {
    this.#tally.alive();
    await waitFor(() => this.#pump() || this.#calls.none, `the end of ${this.#calls.names}`);
    for (const bytes of this.#late.splice(0)) this.#sendReply(bytes, []);
    await turns(1);
    this.#pump();
    this.#calls.assertSound();
  }

  /** After all: what is right still works, or the client has closed for a reason. */
  async finish(): Promise<void> {
    const device = this.#program?.device;
    if (device === undefined) return;
    this.#answers.length = 0;
    await this.wait();
    if (!device.closed && !this.#doomed && !this.#socket.closed && this.#sent.partial === 0)
      await this.#isWell(device);
    if (device.closed && !this.#doomed && !this.#spoilt && !this.#socket.closed)
      throw new Violation('the client closed a connection whose server had done nothing wrong');
  }

  async close(): Promise<void> {
    this.#socket.close();
    await this.#program?.device.close();
    for (const event of this.#events) event.close();
    await waitFor(() => this.#pump() || this.#calls.none, `the end of ${this.#calls.names} after close()`);
    this.#honest.endSession();
    this.#calls.assertSound();
  }

  async #connect(twinSocket: boolean): Promise<void> {
    this.#calls.start('connect', async () => {
      const device = await connect(this.#endpoint, {
        messageTimeout: MESSAGE_TIMEOUT,
        quiesceTimeout: MESSAGE_TIMEOUT,
        connectTimeout: 100,
        twinSocket,
      });
      this.#program = {
        device,
        descriptors: this.#descriptors,
        region: null,
        irq: null,
        areas: [],
        memories: [],
        subRegions: [],
      };
    });
    await this.wait();
  }

  #run({ call, a, b }: Call): unknown {
    if (this.#program === null) return undefined;
    this.#tally.messages++;
    // No two calls have the same parameters, so that the compiler takes only the common form.
    const run: (program: Program, a: number, b: number) => unknown = CALLS[call];
    return run(this.#program, a, b);
  }

  async #callSync({ call, a, b }: CallSync): Promise<void> {
    await this.wait();
    const program = this.#program;
    if (program === null || program.device.closed || this.#socket.closed) return;
    // What the client will ask is only known when it has: the answer fits the most likely question.
    const command =
      call === 'flushSync'
        ? Command.deviceGetInfo
        : call.startsWith('configWrite')
          ? Command.regionWrite
          : Command.regionRead;
    const count = call === 'readBytesSync' ? 1 + (b % 64) : call === 'configRead32Sync' ? 4 : 2;
    const offset =
      call === 'readBytesSync' ? a % 128 : call === 'configRead32Sync' ? (a % 64) * 4 : (a % 32) * 2 + 128;
    const request = new Uint8Array(16);
    const view = new DataView(request.buffer);
    view.setUint32(0, offset, true);
    view.setUint32(8, 7, true);
    view.setUint32(12, count, true);
    this.#reply({
      header: { id: (this.#lastId + 1) & 0xffff, command, size: 0, flags: 0, error: 0 },
      payload: request,
    });
    this.#tally.messages++;
    this.#calls.start(call, () => {
      const run: (program: Program, a: number, b: number) => unknown = SYNC_CALLS[call];
      return run(program, a, b);
    });
  }

  /** Reads what the client has sent, and answers. Returns whether the connection has ended. */
  #pump(): boolean {
    if (this.#calls.failed) return true;
    if (!this.#socket.closed) this.#read(this.#socket, this.#requests);
    const { twin } = this.#honest;
    if (twin !== null && !twin.closed) this.#read(twin, this.#twinRequests);
    this.#pumpIoRegion();
    return false;
  }

  #read(socket: Socket, cutter: MessageCutter): void {
    for (;;) {
      let count;
      try {
        count = socket.receive(this.#buffer, 0, this.#buffer.length);
      } catch {
        count = -1;
      }
      const fds = socket.takeFds();
      if (count > 0) {
        const messages: Cut[] = [];
        if (!cutter.push(this.#buffer.subarray(0, count), 1 << 22, messages))
          throw new Violation('the client sent what is no message');
        for (const message of messages) this.#hear(message, fds);
      }
      for (const fd of fds) closeFd(fd);
      if (count < 0) socket.close();
      if (count <= 0) return;
    }
  }

  #hear(message: Cut, fds: number[]): void {
    const { header, payload } = message;
    const { id, command, flags, error } = header;
    this.#tally.messages++;
    if (isReply(flags)) {
      const asked = this.#commands.get(id);
      if (asked?.command !== command) {
        // It may answer what was sent as junk.
        if (!this.#spoilt)
          throw new Violation(`the reply to ${commandName(command)} (id ${id}) answers nothing`);
        return;
      }
      this.#commands.delete(id);
      const ok = (flags & HeaderFlag.error) === 0;
      this.#tally.see(`${commandName(command)} ${ok ? 'ok' : errnoName(error)}`);
      if (ok && command === Command.dmaRead && payload.length !== 16 + asked.count)
        throw new Violation(
          `the reply to DMA_READ has ${payload.length} bytes, expected 16 and ${asked.count}`,
        );
      return;
    }
    this.#lastId = id;
    this.#tally.see(`${commandName(command)} asked`);
    if (command === Command.deviceSetIrqs && this.#events.length < 64) this.#keepEvents(fds);
    if ((flags & HeaderFlag.noReply) !== 0) return;
    this.#reply(message);
  }

  /** Messages that were read together may have brought other descriptors too. */
  #keepEvents(fds: number[]): void {
    for (const fd of fds.splice(0)) {
      try {
        this.#events.push(EventFd.fromFd(fd));
      } catch {
        closeFd(fd);
      }
    }
  }

  /** Answers a request, as the next answer tells. */
  #reply({ header, payload: request }: Cut): void {
    const { id, command } = header;
    const honest = this.#honest.answer(command, request);
    const next = this.#answers[0];
    if (next === undefined || next.left-- > 0) {
      this.#sendReply(frame(command, honest.payload, id, { flags: HeaderFlag.reply }), honest.fds ?? []);
      return;
    }
    this.#answers.shift();
    this.#spoilt = true;
    const { how, at } = next.answer;
    this.#tally.see(`spoilt: ${how}`);
    const { bytes, fds } = spoiltReply(next.answer, { id, command }, honest, this.#descriptors);
    if (how === 'none') this.#honest.sent();
    else if (how === 'late') this.#late.push(bytes);
    else {
      this.#sendReply(bytes, fds, how === 'cut' ? at : 0);
      if (how === 'twice') this.#sendReply(bytes, fds);
    }
  }

  #sendReply(bytes: Uint8Array, fds: readonly number[], cut = 0): void {
    if (cut > 0 && cut < bytes.length) {
      this.#send(bytes.subarray(0, cut), fds);
      this.#send(bytes.subarray(cut), []);
    } else this.#send(bytes, fds);
    this.#honest.sent();
  }

  #sendDma({ write, range, offset, count, times }: Dma): void {
    const ranges = this.#program?.device.dma.ranges ?? [];
    const start = ranges[range]?.iova ?? BigInt(range) * 4096n;
    const command = write ? Command.dmaWrite : Command.dmaRead;
    const payload = new Uint8Array(write ? 16 + count : 16);
    const view = new DataView(payload.buffer);
    view.setBigUint64(0, start + BigInt(offset), true);
    view.setBigUint64(8, BigInt(count), true);
    for (let i = 0; i < times && !this.#doomed; i++) {
      const id = this.#nextCommand++ & 0x7fff;
      if (this.#commands.has(id)) return;
      this.#tally.messages++;
      const socket = this.#honest.twin ?? this.#socket;
      if (this.#send(frame(command, payload, id), [], socket)) this.#commands.set(id, { command, count });
    }
  }

  /** Sends all of it, or nothing when the client does not read. */
  #send(bytes: Uint8Array, fds: readonly number[], socket: Socket = this.#socket): boolean {
    if (socket.closed) return false;
    if (socket === this.#socket && this.#doomed) return false;
    try {
      let taken = socket.send(bytes, bytes.length, null, 0, fds);
      if (taken === 0) return false;
      // The rest of a message has to follow, or nothing can any more.
      for (let tries = 0; taken < bytes.length && tries < 10_000; tries++)
        taken += socket.send(bytes.subarray(taken), bytes.length - taken, null, 0, null);
      if (taken < bytes.length) this.#doomed = true;
    } catch {
      socket.close();
      return false;
    }
    if (socket === this.#socket && !this.#sent.push(bytes, (1 << 20) + (1 << 16) + 16, []))
      this.#doomed = true;
    return true;
  }

  #pumpIoRegion(): void {
    const { ioRegion } = this.#honest;
    if (ioRegion === null || ioRegion.closed) return;
    try {
      const count = ioRegion.receive(this.#buffer, 0, 32);
      if (count === 0) return;
      if (count < 0) {
        ioRegion.close();
        return;
      }
      this.#tally.messages++;
      this.#tally.see('ioregionfd command');
      const command = this.#buffer.slice(0, count);
      if (count === 32 && (command[0] === 0 || ((command[1] ?? 0) & 0x10) !== 0)) {
        const response = encodeIoRegionResponse(0x1234_5678n);
        // Now and then one is short, or one too many.
        const length = (command[16] ?? 0) % 16 === 3 ? 20 : 32;
        ioRegion.send(response, length, null, 0, null);
        if ((command[16] ?? 0) % 16 === 7) ioRegion.send(response, 32, null, 0, null);
      }
    } catch {
      ioRegion.close();
    }
  }

  /** The client still reads rightly, and serves DMA. */
  async #isWell(device: VfioUserDevice): Promise<void> {
    let value = -1;
    let bytes = new Uint8Array(0);
    this.#calls.start('the last read', async () => {
      value = await device.config.read32(0);
      const region = await device.region(3).catch(() => null);
      if (region !== null) bytes = new Uint8Array(await region.readBytes(0x40, 8));
    });
    await this.wait();
    // A reply that came late to another question may not be taken for this one's; a time-out is the machine's.
    if (value !== -1 && value !== 0x0f23_494f)
      throw new Violation(`after the session, configuration space reads as 0x${value.toString(16)}`);
    if (bytes.some((byte, index) => byte !== patternAt(0x40 + index)))
      throw new Violation(`after the session, region 3 reads as ${Buffer.from(bytes).toString('hex')}`);
    if (value !== -1) this.#tally.see('well after the session');
  }
}
