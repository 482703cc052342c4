// SPDX-License-Identifier: MIT
import { asError } from '../../errors';
import type { ConfigEffect } from '../../pci/config-space';
import { type ControllerConfiguration, Register, ShutdownNotification, ShutdownStatus } from '../spec';
import type { AsyncEvents } from './async-events';
import type { ClientView } from './client-view';
import { type CommandProcessor, FatalError } from './command-processor';
import { controllerParts } from './controller-parts';
import type { DoorbellWatch } from './doorbell-watch';
import type { Doorbells } from './doorbells';
import type { FaultEffects, FaultPlan, Faults } from '../faults';
import type { FaultyRegisters } from './faulty-registers';
import type { FeatureSet } from './feature-set';
import type { InterruptLines } from './interrupt-lines';
import { KeepAlive } from './keep-alive';
import type { Latencies } from './latencies';
import type { NamespaceSet } from './namespace-set';
import type { ResolvedOptions } from './options';
import { Poller } from './poller';
import type { QueueSet } from './queue-set';
import type { Registers } from './registers';
import type { RunningCommands } from './running-commands';
import type { ControllerStatistics, Counters } from './statistics';

/** The connection to the host, as faults use it. */
export interface HostLink {
  /** Ends the connection. */
  disconnect(): void;
  /** Takes the function away from the host, as if its card had been pulled out. */
  unplug(): void;
}

/**
 * The controller behind BAR 0: the state machine of CC and CSTS (NVMe base 2.0, 3.5 to 3.7), which owns the queues and
 * all that serves them. Calls go down from here; what the host has to be told goes by {@link Interrupts}.
 */
export class Controller {
  readonly #options: ResolvedOptions;
  readonly #lines: InterruptLines;
  readonly #namespaces: NamespaceSet;
  readonly #view: ClientView;
  readonly #doorbells: Doorbells;
  readonly #registers: Registers;
  readonly #queues: QueueSet;
  readonly #events: AsyncEvents;
  readonly #watch: DoorbellWatch;
  readonly #features: FeatureSet;
  readonly #running: RunningCommands;
  readonly #commands: CommandProcessor;
  readonly #plan: FaultPlan;
  readonly #faultyRegisters: FaultyRegisters;
  /** Faults on demand. */
  readonly faults: Faults;
  readonly #counters: Counters;
  /** How long I/O commands take; null when that is not measured. */
  readonly latencies: Latencies | null;
  readonly #keepAlive = new KeepAlive((milliseconds) => {
    this.#fail(`No Keep Alive came for ${milliseconds} ms`);
  });
  readonly #poller: Poller;
  /** CC.EN was cleared, and commands that it made void still run. */
  #stopping = false;
  #fault: string | null = null;

  /** @param view the client's memory */
  constructor(
    options: ResolvedOptions,
    namespaces: NamespaceSet,
    view: ClientView,
    doorbells: Doorbells,
    lines: InterruptLines,
    link: HostLink,
  ) {
    this.#options = options;
    this.#namespaces = namespaces;
    this.#view = view;
    this.#doorbells = doorbells;
    this.#lines = lines;
    const surroundings = { options, namespaces, view, doorbells, lines };
    const parts = controllerParts({
      ...surroundings,
      keepAlive: this.#keepAlive,
      effects: this.#effects(link),
    });
    const { busy, queues, commands } = parts;
    this.#registers = parts.registers;
    this.#queues = queues;
    this.#events = parts.events;
    this.#watch = parts.watch;
    this.#features = parts.features;
    this.#running = parts.running;
    this.#commands = commands;
    this.#plan = parts.plan;
    this.#faultyRegisters = parts.faultyRegisters;
    this.faults = parts.faults;
    this.#counters = parts.counters;
    this.latencies = parts.latencies;
    const work = {
      round: () => this.#round(),
      bells: () => (lines.high ? null : commands.bells()),
      look: () => {
        this.#look();
      },
      worked: (milliseconds: number) => {
        busy.worked(milliseconds);
      },
      sleeps: (asleep: boolean) => {
        queues.wantDoorbells(asleep);
      },
    };
    this.#poller = new Poller(work, options.pollSlice, options.idleAfter);
  }

  /** What the controller has done so far. */
  get statistics(): ControllerStatistics {
    return { ...this.#namespaces.counters, ...this.#counters };
  }

  /** Why CSTS.CFS was set, since the last reset; null when it was not. */
  get fault(): string | null {
    return this.#fault;
  }

  /** Reads BAR 0. Throws a CommandError for an access that a register does not take. */
  read(offset: number, data: Uint8Array): void | Promise<void> {
    if (!this.#plan.strikesRegisters) {
      this.#read(offset, data);
      return;
    }
    return this.#faultyRegisters.access('read', offset, data, () => {
      this.#read(offset, data);
    });
  }

  /** Writes BAR 0, as {@link read} reads it, and does what the write asks for. */
  write(offset: number, data: Uint8Array): void | Promise<void> {
    if (!this.#plan.strikesRegisters) {
      this.#write(offset, data);
      return;
    }
    return this.#faultyRegisters.access('write', offset, data, () => {
      this.#write(offset, data);
    });
  }

  #read(offset: number, data: Uint8Array): void {
    const doorbells = this.#doorbells;
    if (offset >= Register.doorbells) doorbells.read(doorbells.index(offset, data.length), data);
    else this.#registers.read(offset, data);
  }

  #write(offset: number, data: Uint8Array): void {
    if (offset >= Register.doorbells) {
      this.#ring(this.#doorbells.index(offset, data.length), data);
      return;
    }
    const previous = this.#registers.configuration;
    this.#registers.write(offset, data);
    if (offset === Register.cc) this.#configure(previous);
    if (offset === Register.intms || offset === Register.intmc) this.#maskInterrupts();
    this.wake();
  }

  /** Looks at the doorbells soon, if there are any queues. */
  wake(): void {
    if (this.#queues.submissions.size > 0) this.#poller.wake();
  }

  /**
   * Bus Master Enable may have changed. While it is clear, commands wait where they are: in their queues, before their data is moved,
   * before they are completed.
   */
  busMasterChanged(): void {
    this.#queues.unmap();
    if (!this.#view.reachable) return;
    this.#view.release();
    // A hypervisor drops messages of a function that is no bus master, also those that were sent just before.
    this.#queues.interruptAgain();
    this.wake();
  }

  /** Configuration space has changed: the host has enabled other interrupts. */
  interruptsChanged(effect: ConfigEffect): void {
    if (this.#lines.configured(effect)) this.#queues.interruptAgain();
  }

  #maskInterrupts(): void {
    this.#lines.mask(this.#registers.interruptMask);
    this.#queues.interruptAgain();
  }

  /** Memory of the client's is about to go, and the view does not find it any more. */
  unmap(): void {
    this.#queues.unmap();
  }

  /** There is a client: the controller has power. */
  powerOn(): void {
    this.#counters.powerCycles++;
  }

  /**
   * Puts the controller into its state after power-on, but for the data.
   * @returns resolves when nothing of what was stopped touches the client's memory any more
   */
  reset(): Promise<void> {
    const { configuration, status } = this.#registers;
    if (configuration.enable && status.shutdown !== ShutdownStatus.complete) this.#counters.unsafeShutdowns++;
    this.#stop();
    this.#stopping = false;
    this.#registers.reset();
    this.#lines.reset();
    this.#faultyRegisters.release();
    return new Promise((resolve) => {
      this.#running.whenDrained(resolve);
    });
  }

  /** Does what a write to CC asks for (NVMe base 2.0, 3.1.3.5). */
  #configure(previous: ControllerConfiguration): void {
    const { enable, shutdown } = this.#registers.configuration;
    if (previous.enable && !enable) {
      this.#disable();
      return;
    }
    if (!previous.enable && enable && !this.#stopping) this.#enable();
    const { status } = this.#registers;
    if (shutdown !== ShutdownNotification.none && status.shutdown === ShutdownStatus.normal) this.#shutDown();
  }

  /** CC.EN was set: the controller becomes ready, unless it lacks what CC and AQA ask for. */
  #enable(): void {
    const { configuration, adminQueues, status } = this.#registers;
    const { mps, commandSet, arbitration } = configuration;
    const { submissionEntries, completionEntries } = adminQueues;
    status.shutdown = ShutdownStatus.normal;
    // Entry sizes are not looked at: hosts may set them as late as before the first I/O queue.
    if (mps !== 0 || commandSet !== 0 || arbitration !== 0) {
      this.#refuse(`CC asks for MPS ${mps}, CSS ${commandSet}, AMS ${arbitration}; all of them must be 0`);
    } else if (submissionEntries < 2 || completionEntries < 2) {
      this.#refuse('AQA makes an admin queue of fewer than two entries');
    } else {
      const missing = this.#createAdminQueues();
      if (missing >= 0) {
        this.#fail(
          `The admin queues are not in memory that the client shares for reading and writing: 0x${missing.toString(16)} is missing; a guest of QEMU needs a memory backend with share=on`,
        );
        return;
      }
      status.ready = true;
      this.wake();
    }
  }

  #refuse(reason: string): void {
    this.#fail(`The controller was not enabled (CSTS.CFS): ${reason}`);
  }

  /** Returns -1, or the address of an entry that is not in memory which the client shares. */
  #createAdminQueues(): number {
    const { adminQueues } = this.#registers;
    // What was written before there were queues means nothing.
    this.#doorbells.clear();
    const { completionAddress, completionEntries, submissionAddress, submissionEntries } = adminQueues;
    const completions = this.#queues.createCompletionQueue(0, completionAddress, completionEntries, 0);
    if (typeof completions === 'number') return completions;
    const queue = this.#queues.createSubmissionQueue(0, submissionAddress, submissionEntries, completions);
    return typeof queue === 'number' ? queue : -1;
  }

  /** CC.EN was cleared: a controller reset, which is over once CSTS.RDY is 0. */
  #disable(): void {
    this.#registers.clear();
    this.#lines.mask(0);
    this.#stopping = true;
    this.#stop();
    this.#running.whenDrained(() => {
      if (!this.#stopping) return; // There was a reset of another kind meanwhile.
      this.#stopping = false;
      this.#registers.status.ready = false;
      // The host has set CC.EN meanwhile.
      if (this.#registers.configuration.enable) this.#enable();
    });
  }

  /** CC.SHN was set: what was written is made durable, then the host may take the power (NVMe base 2.0, 3.6). */
  #shutDown(): void {
    const { status } = this.#registers;
    status.shutdown = ShutdownStatus.occurring;
    this.#halt();
    const complete = (): void => {
      if (status.shutdown === ShutdownStatus.occurring) status.shutdown = ShutdownStatus.complete;
    };
    this.#running.whenDrained(() => {
      if (!this.#namespaces.volatileCache) complete();
      else {
        this.#namespaces.flush().then(complete, (error: unknown) => {
          // The host cannot be told any more.
          this.#options.onWarning(`What was written is not durable at shutdown: ${asError(error).message}`);
          complete();
        });
      }
    });
  }

  /** CSTS.CFS: nothing is processed until the host resets the controller (NVMe base 2.0, 9.5). */
  #fail(reason: string): void {
    this.#halt();
    this.#registers.status.fatal = true;
    this.#fault = reason;
    this.#options.onFault(reason);
  }

  /** What faults do to the controller. */
  #effects(link: HostLink): FaultEffects {
    return {
      fatal: () => {
        this.#fail('a fault was asked for');
      },
      event: (event) => {
        this.#events.raise(event);
      },
      disconnect: () => {
        link.disconnect();
      },
      remove: () => {
        void this.reset();
        link.unplug();
      },
    };
  }

  /** The part that the resets of all kinds share. */
  #stop(): void {
    this.#halt();
    this.#features.reset();
    this.#fault = null;
    this.#counters.resets++;
  }

  /** Ends the processing of commands: drops the queues and all that belongs to them. */
  #halt(): void {
    this.#keepAlive.stop();
    this.#poller.stop();
    this.#commands.drop();
    this.#settleInterrupts();
    this.#view.release();
    this.#events.reset();
  }

  #round(): number {
    try {
      const commands = this.#commands.round();
      if (!this.#lines.high) return commands;
      this.#settleInterrupts();
      // The host takes what there is, and the pin must not stay high for long then.
      return Math.max(commands, 1);
    } catch (error) {
      this.#broke(error);
      return 0;
    }
  }

  /** Lowers the pin where the host has taken everything. */
  #settleInterrupts(): void {
    this.#lines.settle((vector) => this.#queues.unread(vector));
  }

  #look(): void {
    try {
      this.#watch.look();
    } catch (error) {
      this.#broke(error);
    }
  }

  #broke(error: unknown): void {
    // Without a FatalError, memory of the client's went away in spite of the contract, or there is a defect. The
    // process serves others too.
    this.#fail(error instanceof FatalError ? error.message : `Processing failed: ${String(error)}`);
  }

  /** Writes a doorbell. */
  #ring(index: number, data: Uint8Array): void {
    if (this.#queues.hasDoorbell(index)) {
      this.#doorbells.write(index, data);
      // The host may look whether there is more to be served right behind it.
      if (this.#lines.high) this.#settleInterrupts();
      this.wake();
    } else if (this.#registers.configuration.enable) this.#watch.noQueue();
  }
}
