// SPDX-License-Identifier: MIT
import type { DeviceRegion } from '../../pci';
import { Register, controllerStatus } from '../spec';

/** Milliseconds between two looks at what was completed. */
const LOOK_MILLISECONDS = 50;
/** Looks that find nothing completed before the status is read. */
const LOOKS = 2;
/** What registers read as when there is no function behind them. */
const ALL_ONES = 0xffff_ffff;

/** Commands of a queue. */
export interface WatchedQueue {
  /** Commands that a completion is expected for. */
  readonly outstanding: number;
  /** Commands that were completed so far. */
  readonly completed: number;
}

/** What the status of a controller tells that does not complete its commands. */
export interface StatusProblem {
  /** In words, behind the name of the controller. */
  readonly text: string;
  /** Whether a reset may help: the controller is there. */
  readonly resettable: boolean;
}

/**
 * Looks at CSTS while commands are outstanding and none is completed: a controller that has failed completes nothing, and says so
 * there alone (NVMe base 2.0, 9.5). A register of a device in another process is a message, which a controller at work is spared.
 */
export class StatusWatch {
  readonly queues = new Set<WatchedQueue>();
  /** Called when the controller is not going to complete its commands. */
  onProblem: (problem: StatusProblem) => void = () => undefined;
  readonly #bar: DeviceRegion;
  #timer: NodeJS.Timeout | undefined;
  /** Commands that were completed by the last look. */
  #completed = 0;
  /** Looks since then that have found nothing more. */
  #looks = 0;
  #asking = false;

  constructor(bar: DeviceRegion) {
    this.#bar = bar;
  }

  /** A command was sent. */
  begin(): void {
    if (this.#timer === undefined) this.#start();
  }

  /** Nothing is outstanding any more. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #start(): void {
    this.#looks = 0;
    this.#timer = setInterval(() => {
      this.#look();
    }, LOOK_MILLISECONDS);
    this.#timer.unref();
  }

  #look(): void {
    let outstanding = 0;
    let completed = 0;
    for (const queue of this.queues) {
      outstanding += queue.outstanding;
      completed += queue.completed;
    }
    if (outstanding === 0) {
      this.stop();
    } else if (completed !== this.#completed) {
      this.#completed = completed;
      this.#looks = 0;
    } else if (++this.#looks >= LOOKS && !this.#asking) {
      this.#looks = 0;
      void this.#ask();
    }
  }

  async #ask(): Promise<void> {
    const timer = this.#timer;
    this.#asking = true;
    try {
      const problem = problemOf(await this.#bar.read32(Register.csts));
      // Another controller may have come, or other commands.
      if (problem !== null && timer === this.#timer) this.onProblem(problem);
    } catch {
      // The connection tells by itself when it is lost, and a message without an answer says nothing of the controller.
    } finally {
      this.#asking = false;
    }
  }
}

function problemOf(csts: number): StatusProblem | null {
  const text = `CSTS 0x${csts.toString(16)}`;
  if (csts === ALL_ONES) {
    return { text: 'is gone: its registers read as ones, as if it had been pulled out', resettable: false };
  }
  const { fatal, ready } = controllerStatus.decode(csts);
  if (fatal) return { text: `has failed with a fatal error (CFS, ${text})`, resettable: true };
  return ready ? null : { text: `is not ready any more (${text}): somebody has reset it`, resettable: true };
}
