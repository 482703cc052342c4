// SPDX-License-Identifier: MIT
import type { Socket, SocketWatcher } from '../native';
import { answerTo, type ControlAnswer, type ControlCommands } from './control-request';

/** Longest line in bytes, the line feed included. @internal Exported for its test. */
export const MAX_LINE = 1 << 16;
/** Answers that wait for a client that does not read, in bytes, from which on no more commands are taken of it. */
const MAX_UNSENT = 1 << 20;

const LINE_FEED = 0x0a;

/** What a {@link ControlClient} works with. */
export interface ControlClientOptions {
  readonly commands: ControlCommands;
  /** Called when something came from the client. */
  readonly onSign: () => void;
  readonly onClose: () => void;
}

/** A client of a control socket. Its commands are done one after the other, in their order. */
export class ControlClient {
  readonly #socket: Socket;
  readonly #watcher: SocketWatcher;
  readonly #options: ControlClientOptions;
  /** What came and was not looked at, up to {@link #filled}: less than a line of the greatest length. */
  readonly #received = new Uint8Array(MAX_LINE);
  #filled = 0;
  /** Answers that the socket did not take yet. */
  #unsent: Uint8Array = new Uint8Array(0);
  /** A command takes its time. */
  #busy = false;
  /** Nothing more is taken from the client: it has ended, or broke the rules. */
  #ending = false;
  #closed = false;

  /** @param socket is the client's from now on */
  constructor(socket: Socket, options: ControlClientOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#watcher = socket.watch(() => {
      this.#goOn(() => {
        this.#flush();
        if (this.#listening) this.#receive();
      });
    });
  }

  /** Disconnects the client. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
    this.#options.onClose();
  }

  /** Whether more is taken from the client. Who sends commands and does not read the answers has to wait. */
  get #listening(): boolean {
    return !this.#busy && !this.#ending && this.#unsent.length < MAX_UNSENT;
  }

  /** Does a step, the commands that have come, and decides what is waited for. */
  #goOn(step: () => void): void {
    if (this.#closed) return;
    try {
      step();
      this.#obeyAll();
      if (this.#ending && !this.#busy && this.#unsent.length === 0) {
        this.close();
        return;
      }
      this.#watcher.setReadable(this.#listening);
      this.#watcher.setWritable(this.#unsent.length > 0);
    } catch {
      this.close(); // The socket failed: the client is gone.
    }
  }

  #receive(): void {
    const count = this.#socket.receive(this.#received, this.#filled, MAX_LINE - this.#filled, 0, 0, false);
    if (count < 0) {
      this.#ending = true;
      return;
    }
    this.#filled += count;
    this.#options.onSign();
  }

  #obeyAll(): void {
    while (!this.#busy && this.#unsent.length < MAX_UNSENT) {
      const end = this.#received.subarray(0, this.#filled).indexOf(LINE_FEED);
      if (end < 0) break;
      const line = Buffer.from(this.#received.subarray(0, end)).toString('utf8');
      this.#received.copyWithin(0, end + 1, this.#filled);
      this.#filled -= end + 1;
      if (line.trim() !== '') this.#obey(line);
    }
    if (this.#filled < MAX_LINE || this.#busy || this.#unsent.length >= MAX_UNSENT) return;
    this.#answer({ id: null, error: `a line has at most ${MAX_LINE} bytes; the connection ends here` });
    this.#filled = 0;
    this.#ending = true;
  }

  #obey(line: string): void {
    const answer = answerTo(line, this.#options.commands);
    if (!(answer instanceof Promise)) {
      this.#answer(answer);
      return;
    }
    this.#busy = true;
    void answer.then((settled) => {
      this.#busy = false;
      this.#goOn(() => {
        this.#answer(settled);
      });
    });
  }

  #answer(answer: ControlAnswer): void {
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(`${JSON.stringify(answer)}\n`)]);
    this.#flush();
  }

  #flush(): void {
    if (this.#unsent.length === 0) return;
    this.#unsent = this.#unsent.subarray(this.#socket.send(this.#unsent, this.#unsent.length, null, 0, null));
  }
}
