// SPDX-License-Identifier: MIT
import { channel } from 'node:diagnostics_channel';
import { VfioUserError } from '../errors';
import type { EventFd, EventWatcher } from '../native';
import type { IrqAction } from '../protocol';
import { SignalStream, type SignalSource } from './signal-stream';

/** Receives the number of signals since its last call. INTx is unmasked when it is done: a promise is waited for. */
export type IrqHandler = (signals: number) => unknown;

/** What a vector asks of the interrupt index that it belongs to. */
export interface VectorOwner {
  /** Name of the endpoint, for messages. */
  readonly endpoint: string;
  readonly index: number;
  act(action: IrqAction, vector: number): Promise<void>;
  bind(action: 'mask' | 'unmask', vector: number, eventFd: EventFd | null): Promise<void>;
  /** Whether {@link handled} has anything to do. */
  unmasks(): boolean;
  /** A signal has been handled. */
  handled(vector: number): void;
}

/** Published on the diagnostics channel `vfio-user:irq` for each delivery. */
export interface IrqTrace {
  /** Name of the device, such as its socket path. */
  readonly endpoint: string;
  /** Interrupt index, see `PciIrq`. */
  readonly index: number;
  /** Number of the vector within its index. */
  readonly vector: number;
  /** Signals since the delivery before. */
  readonly signals: number;
}

const irqChannel = channel('vfio-user:irq');

/** One vector of an interrupt index. Made by `irq.vector(n)`; what it delivers depends on what `enable` was given. */
export class IrqVector {
  /** Number of the vector within its index. */
  readonly vector: number;
  readonly #owner: VectorOwner;
  readonly #streams = new Set<SignalStream>();
  #eventFd: EventFd | null = null;
  #owned = false;
  #handler: IrqHandler | null = null;
  #watcher: EventWatcher | null = null;
  #spin = 0;
  #ref = true;

  /** @internal */
  constructor(owner: VectorOwner, vector: number) {
    this.#owner = owner;
    this.vector = vector;
  }

  /** Whether the device signals the vector. */
  get enabled(): boolean {
    return this.#eventFd !== null;
  }

  /** The eventfd that the device signals, for a worker thread or KVM; null while disabled. It belongs to this object. */
  get fd(): number | null {
    return this.#eventFd?.fd ?? null;
  }

  /**
   * Takes the counter of signals without waiting. While a handler or {@link signals} listens, that gets the counts.
   *
   * @returns the number of signals since the counter was taken last
   * @throws VfioUserError ERR_VFIO_USER_CLOSED when the vector is not enabled
   */
  poll(): number {
    return this.#enabled().read();
  }

  /**
   * Iterates over numbers of signals, each counted since the one before, until the vector is disabled or the device closed.
   * INTx is unmasked when the loop asks for the next one.
   *
   * @throws VfioUserError ERR_VFIO_USER_CLOSED when the vector is not enabled. The iterator throws the reason of
   *   `signal`, and the error with which the connection ended
   * @example for await (const count of irq.vector(0).signals({ signal })) console.log(count);
   */
  signals(options: { readonly signal?: AbortSignal } = {}): SignalStream {
    this.#enabled();
    const source: SignalSource = {
      start: (stream) => {
        this.#add(stream);
      },
      stop: (stream) => {
        this.#remove(stream);
      },
      handled: () => {
        if (this.#handler === null) this.#owner.handled(this.vector);
      },
    };
    return new SignalStream(source, options.signal);
  }

  /** Calls {@link signals}. */
  [Symbol.asyncIterator](): SignalStream {
    return this.signals();
  }

  /** Has the device signal the vector, which tests the way of a signal (vfio-user, VFIO_USER_DEVICE_SET_IRQS, DATA_NONE and TRIGGER). */
  trigger(): Promise<void> {
    return this.#owner.act('trigger', this.vector);
  }

  /** Masks the vector; what the device signals meanwhile becomes pending. */
  mask(): Promise<void> {
    return this.#owner.act('mask', this.vector);
  }

  /** Unmasks the vector; for INTx also what ends an interrupt that was polled, or that went to an eventfd of the caller's. */
  unmask(): Promise<void> {
    return this.#owner.act('unmask', this.vector);
  }

  /**
   * Gives the device an eventfd; signalling it does the action, as KVM does for an INTx that the guest has ended.
   * (`linux/vfio.h`: with ACTION_MASK and ACTION_UNMASK, eventfds signal from the user to the device.)
   *
   * @param eventFd stays the caller's; null takes the last one away
   */
  bind(action: 'mask' | 'unmask', eventFd: EventFd | null): Promise<void> {
    return this.#owner.bind(action, this.vector, eventFd);
  }

  /** Keeps the event loop alive while something listens; the default. */
  ref(): void {
    this.#ref = true;
    this.#watcher?.ref();
  }

  /** Lets the event loop end in spite of listeners. */
  unref(): void {
    this.#ref = false;
    this.#watcher?.unref();
  }

  /** Begins to listen at an eventfd, with `spin` for its `watch`. @internal */
  attach(eventFd: EventFd, owned: boolean, handler: IrqHandler | null, spin: number): void {
    this.#eventFd = eventFd;
    this.#owned = owned;
    this.#handler = handler;
    this.#spin = spin;
    this.#listen();
  }

  /** Ends the streams, and lets the eventfd go. @internal */
  detach(): void {
    const eventFd = this.#eventFd;
    this.#eventFd = null;
    this.#handler = null;
    this.fail(null);
    this.#listen();
    if (this.#owned) eventFd?.close();
  }

  /** Ends the streams, as no signal will come any more. @internal */
  fail(error: VfioUserError | null): void {
    for (const stream of [...this.#streams]) stream.end(error);
  }

  #enabled(): EventFd {
    if (this.#eventFd !== null) return this.#eventFd;
    throw new VfioUserError(
      'ERR_VFIO_USER_CLOSED',
      `Vector ${this.vector} of interrupt index ${this.#owner.index} of ${this.#owner.endpoint} is not enabled; call enable() first`,
    );
  }

  #add(stream: SignalStream): void {
    this.#streams.add(stream);
    if (this.#eventFd === null) stream.end(null);
    else this.#listen();
  }

  #remove(stream: SignalStream): void {
    this.#streams.delete(stream);
    this.#listen();
  }

  #listen(): void {
    const wanted = this.#eventFd !== null && (this.#handler !== null || this.#streams.size > 0);
    if (wanted === (this.#watcher !== null)) return;
    this.#watcher?.close();
    this.#watcher = null;
    if (!wanted || this.#eventFd === null) return;
    const owner = this.#owner;
    const streams = this.#streams;
    // Little is done before the handler is called: a processor that was asleep has none of this code in its caches.
    this.#watcher = this.#eventFd.watch(
      (signals) => {
        if (irqChannel.hasSubscribers) this.#trace(signals);
        if (streams.size > 0) for (const stream of streams) stream.push(signals);
        const handler = this.#handler;
        if (handler === null) return;
        if (owner.unmasks()) this.#handle(handler, signals);
        else handler(signals);
      },
      { spin: this.#spin },
    );
    if (!this.#ref) this.#watcher.unref();
  }

  #trace(signals: number): void {
    const { endpoint, index } = this.#owner;
    irqChannel.publish({ endpoint, index, vector: this.vector, signals } satisfies IrqTrace);
  }

  #handle(handler: IrqHandler, signals: number): void {
    let running: unknown;
    const handled = (): void => {
      this.#owner.handled(this.vector);
    };
    try {
      running = handler(signals);
    } finally {
      // The interrupt is unmasked after a handler that throws too, since the process may survive an uncaught exception.
      if (running instanceof Promise) void running.finally(handled);
      else handled();
    }
  }
}
