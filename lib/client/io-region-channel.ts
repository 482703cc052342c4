// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { Socket, SocketWatcher } from '../native';
import { IOREGION_MESSAGE_SIZE } from '../protocol';
import { DeadlineTimer, SLEEP_MILLISECONDS, SPIN_MICROSECONDS } from '../transport';

/** A command for the other end. */
interface Operation {
  readonly bytes: Uint8Array;
  readonly respond: boolean;
  readonly deadline: number;
  readonly settle: (error: VfioUserError | null, response: Uint8Array) => void;
}

const NO_RESPONSE = new Uint8Array(0);

/**
 * The socket of an ioregionfd. Responses carry no id, so one command is under way at a time, as with KVM; one that is not
 * answered in time ends the channel, since its late response would be taken for the next one's.
 */
export class IoRegionChannel {
  readonly #socket: Socket;
  readonly #name: string;
  readonly #timeout: number;
  readonly #input = new Uint8Array(IOREGION_MESSAGE_SIZE);
  readonly #queue: Operation[] = [];
  #received = 0;
  #sent = false;
  #watcher: SocketWatcher | undefined;
  readonly #timer = new DeadlineTimer((now) => {
    const deadline = this.#queue[0]?.deadline ?? Infinity;
    if (now < deadline) return deadline;
    this.#expire();
    return Infinity;
  });
  #error: VfioUserError | null = null;

  /**
   * @param socket is the channel's from now on
   * @param name for messages
   * @param timeout milliseconds for each command
   */
  constructor(socket: Socket, name: string, timeout: number) {
    this.#socket = socket;
    this.#name = name;
    this.#timeout = timeout;
  }

  /** Resolves with the response; with no bytes when none is wanted, once the command is with the kernel. */
  request(bytes: Uint8Array, respond: boolean): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#push(bytes, respond, (error, response) => {
        if (error === null) resolve(response);
        else reject(error);
      });
      this.#watch();
    });
  }

  /** Blocks the thread until {@link request} would resolve. */
  requestSync(bytes: Uint8Array, respond: boolean): Uint8Array {
    const outcome: { error: VfioUserError | null; response: Uint8Array | null } = {
      error: null,
      response: null,
    };
    this.#push(bytes, respond, (error, response) => {
      Object.assign(outcome, { error, response });
    });
    while (outcome.response === null) this.#wait();
    this.#watch();
    if (outcome.error !== null) throw outcome.error;
    return outcome.response;
  }

  /** Closes the socket. Commands that wait fail with ERR_VFIO_USER_CLOSED. Idempotent. */
  close(): void {
    this.#fail(
      new VfioUserError(
        'ERR_VFIO_USER_CLOSED',
        `${this.#name} is closed, as its device is, or was disconnected`,
      ),
    );
  }

  #push(bytes: Uint8Array, respond: boolean, settle: Operation['settle']): void {
    if (this.#error !== null) {
      settle(this.#error, NO_RESPONSE);
      return;
    }
    this.#queue.push({ bytes, respond, deadline: performance.now() + this.#timeout, settle });
    this.#advance(0, 0);
  }

  /** Sends commands and receives responses as far as the socket allows. */
  #advance(spinMicroseconds: number, timeoutMilliseconds: number): void {
    try {
      for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
        if (!this.#sent) {
          if (this.#socket.send(first.bytes, first.bytes.length, null, 0, null) === 0) return;
          this.#sent = true;
        }
        if (first.respond && !this.#receive(spinMicroseconds, timeoutMilliseconds)) return;
        this.#sent = false;
        this.#queue.shift();
        first.settle(null, first.respond ? this.#input.slice() : NO_RESPONSE);
      }
    } catch (cause) {
      this.#fail(
        new VfioUserError('ERR_VFIO_USER_DISCONNECTED', `${this.#name}: the server closed the socket`, {
          cause,
        }),
      );
    }
  }

  #receive(spinMicroseconds: number, timeoutMilliseconds: number): boolean {
    const left = IOREGION_MESSAGE_SIZE - this.#received;
    const count = this.#socket.receive(
      this.#input,
      this.#received,
      left,
      spinMicroseconds,
      timeoutMilliseconds,
    );
    if (count < 0) throw new Error('end of stream');
    this.#received = (this.#received + count) % IOREGION_MESSAGE_SIZE;
    return count === left;
  }

  #wait(): void {
    const first = this.#queue[0];
    if (first === undefined) return;
    const left = first.deadline - performance.now();
    if (left <= 0) this.#expire();
    else if (this.#sent) this.#advance(SPIN_MICROSECONDS, Math.min(left, SLEEP_MILLISECONDS));
    else {
      this.#socket.waitWritable(Math.min(left, SLEEP_MILLISECONDS));
      this.#advance(0, 0);
    }
  }

  /** Watches the socket while a command waits, and only then keeps the event loop alive. */
  #watch(): void {
    if (this.#error !== null) return;
    const first = this.#queue[0];
    if (first === undefined) {
      this.#watcher?.close();
      this.#watcher = undefined;
      return;
    }
    if (this.#watcher === undefined) {
      this.#watcher = this.#socket.watch(() => {
        this.#advance(0, 0);
        this.#watch();
      });
    }
    this.#watcher.setWritable(!this.#sent);
    this.#timer.arm(first.deadline);
  }

  #expire(): void {
    this.#fail(
      new VfioUserError(
        'ERR_VFIO_USER_TIMEOUT',
        `${this.#name}: no response within ${this.#timeout} ms; the descriptor is not used any more`,
      ),
    );
  }

  #fail(error: VfioUserError): void {
    if (this.#error !== null) return;
    this.#error = error;
    this.#timer.clear();
    this.#socket.close();
    for (const { settle } of this.#queue.splice(0)) settle(error, NO_RESPONSE);
  }
}
