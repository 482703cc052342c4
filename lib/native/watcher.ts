// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { addon, checked } from './addon';

/** Bits of the mask of events that a watcher asks for, and that its handler gets. */
export const Ready = { read: 1, write: 2 } as const;

/** Longest time to spin that the addon takes, in microseconds: a hundred years, which stand for an infinite time. */
const MAX_SPIN = 100 * 365 * 86_400_000_000;

/**
 * Calls a function whenever a file descriptor is ready, for as long as it is. Keeps the event loop alive unless
 * {@link unref} was called. It holds a duplicate of the descriptor, so the file stays open until {@link close}.
 */
export class Watcher {
  readonly #id: number;
  #closed = false;

  /**
   * @param events mask of {@link Ready}
   * @param drain the descriptor is an eventfd: read its counter, and call the handler with it instead of the mask
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF; EPERM for a file that is always ready)
   */
  constructor(fd: number, events: number, drain: boolean, handler: (value: number) => void) {
    this.#id = checked(
      addon().watch(fd, events, drain, handler),
      'epoll_ctl',
      `Watching file descriptor ${fd}`,
    );
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** @throws VfioUserError `ERR_VFIO_USER_CLOSED` */
  setEvents(events: number): void {
    this.#use();
    checked(addon().setWatcherEvents(this.#id, events), 'epoll_ctl', 'Changing the events of a watcher');
  }

  /**
   * For how long, from now on and from each call of the handler, the event loop looks whether the descriptor is ready again
   * instead of sleeping. Everything else on the loop is served meanwhile.
   *
   * @param microseconds 0 to Infinity; 0, the default, sleeps at once
   */
  setSpin(microseconds: number): void {
    this.#use();
    const time = Math.min(Math.ceil(microseconds), MAX_SPIN);
    checked(addon().setWatcherSpin(this.#id, time), 'uv_idle_init', 'Changing how a watcher waits');
  }

  /** Keeps the event loop alive; the default. No effect once closed. */
  ref(): void {
    if (!this.#closed) addon().setWatcherRef(this.#id, true);
  }

  /** Lets the event loop end in spite of this watcher. No effect once closed. */
  unref(): void {
    if (!this.#closed) addon().setWatcherRef(this.#id, false);
  }

  /** Idempotent; may be called by the handler itself. The handler is not called any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    addon().unwatch(this.#id);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #use(): void {
    if (this.#closed) throw new VfioUserError('ERR_VFIO_USER_CLOSED', 'The watcher is closed');
  }
}
