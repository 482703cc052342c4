// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange, systemError } from '../errors';
import { addon, checked } from './addon';
import { checkFd, closeFd } from './fd';
import { Ready, Watcher } from './watcher';

const EAGAIN = 11;
const EPROTOTYPE = 91;

/** How an {@link EventFd} is watched. */
export interface EventWatchOptions {
  /**
   * Microseconds during which the event loop looks for the next signal instead of sleeping, counted from now on and from each
   * call of the handler. It keeps a processor busy, and saves the 10 to 50 µs that waking a sleeping thread takes. A loop that
   * has other work does that work, and looks once a turn. A loop without work does nothing but look, for up to 50 µs a turn or
   * until a descriptor is ready. 0 to Infinity. Default 0.
   */
  readonly spin?: number;
}

/** An {@link EventFd} being watched. */
export interface EventWatcher {
  /** Whether it was closed. */
  readonly closed: boolean;
  /** Keeps the event loop alive; the default. */
  ref(): void;
  /** Lets the event loop end in spite of this watcher. */
  unref(): void;
  /** Stops watching. Idempotent; may be called by the handler itself. */
  close(): void;
  /** Calls {@link close}. */
  [Symbol.dispose](): void;
}

/**
 * An eventfd (eventfd(2)): a counter that one side adds to and the other takes. Owns its descriptor. No method blocks,
 * whether or not the descriptor is non-blocking.
 */
export class EventFd {
  readonly #fd: number;
  readonly #watchers = new Set<Watcher>();
  #closed = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * A new eventfd, non-blocking and closed on exec.
   *
   * @param initial counter to start with, 0 to 2^32 - 1
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EMFILE)
   * @throws RangeError `ERR_OUT_OF_RANGE`
   */
  static create(initial = 0): EventFd {
    if (!Number.isInteger(initial) || initial < 0 || initial > 0xffffffff) {
      throw outOfRange(`The initial counter of an eventfd is an integer from 0 to 2^32 - 1, got ${initial}`);
    }
    return new EventFd(checked(addon().eventfdCreate(initial), 'eventfd', 'Creating an eventfd'));
  }

  /**
   * Takes over a descriptor, such as one that the peer sent. The descriptor stays the caller's when this throws.
   * It becomes closed on exec. Whether it is non-blocking does not change: that is shared with the peer, who may wait for
   * signals in a blocking read(2).
   *
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EPROTOTYPE when it is no eventfd, EBADF)
   */
  static fromFd(fd: number): EventFd {
    const result = addon().eventfdAdopt(checkFd(fd));
    if (result === -EPROTOTYPE)
      throw systemError('readlink', EPROTOTYPE, `File descriptor ${fd} is no eventfd`);
    checked(result, 'fcntl', `Taking over file descriptor ${fd} as an eventfd`);
    return new EventFd(fd);
  }

  /**
   * Number of the descriptor, which belongs to this object.
   *
   * @throws VfioUserError `ERR_VFIO_USER_CLOSED`
   */
  get fd(): number {
    if (this.#closed) throw new VfioUserError('ERR_VFIO_USER_CLOSED', 'The eventfd is closed');
    return this.#fd;
  }

  /** Whether {@link close} was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Adds to the counter, which wakes whoever waits for it. A counter that is full stays full: its reader has been told.
   *
   * @param count 1 to 2^53 - 1
   * @throws VfioUserError `ERR_VFIO_USER_CLOSED`
   * @throws RangeError `ERR_OUT_OF_RANGE`
   */
  signal(count = 1): void {
    if (!Number.isSafeInteger(count) || count < 1) {
      throw outOfRange(`An eventfd is signalled with an integer from 1 to 2^53 - 1, got ${count}`);
    }
    const result = addon().eventfdSignal(this.fd, count);
    if (result !== -EAGAIN) checked(result, 'write', 'Signalling an eventfd');
  }

  /**
   * Takes the counter, which becomes 0.
   *
   * @returns the counter; rounded when above 2^53
   * @throws VfioUserError `ERR_VFIO_USER_CLOSED`
   */
  read(): number {
    return checked(addon().eventfdRead(this.fd), 'read', 'Reading an eventfd');
  }

  /**
   * Calls a function with the counter whenever it is not 0, and sets it to 0. Signals coalesce: the counter says how
   * many there were. An exception of the handler is an uncaught exception of the process.
   *
   * @throws VfioUserError `ERR_VFIO_USER_CLOSED`, `ERR_VFIO_USER_SYSTEM` (EMFILE)
   * @throws RangeError `ERR_OUT_OF_RANGE` when `spin` is negative or no number
   */
  watch(handler: (count: number) => void, options: EventWatchOptions = {}): EventWatcher {
    const { spin = 0 } = options;
    if (!(spin >= 0)) throw outOfRange(`spin is a time from 0 µs on, got ${spin}`);
    for (const old of this.#watchers) if (old.closed) this.#watchers.delete(old);
    const watcher = new Watcher(this.fd, Ready.read, true, handler);
    if (spin > 0) watcher.setSpin(spin);
    this.#watchers.add(watcher);
    return watcher;
  }

  /** Closes the descriptor and its watchers. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const watcher of this.#watchers) watcher.close();
    closeFd(this.#fd);
  }

  /** Calls {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
