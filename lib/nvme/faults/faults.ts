// SPDX-License-Identifier: MIT
import type { AsyncEvent } from '../spec';
import type { CommandAction, ControllerAction, FaultSpec } from './fault';
import { CONTROLLER_ACTIONS, parseControllerAction, parseFault } from './parse';
import type { FaultPlan, FaultState } from './plan';

/** What faults do to a controller. */
export interface FaultEffects {
  /** Sets CSTS.CFS. */
  fatal(): void;
  event(event: AsyncEvent): void;
  disconnect(): void;
  remove(): void;
}

/** Whether an action is done to the controller, and not to a command. */
export function isControllerAction(
  action: CommandAction | ControllerAction | undefined,
): action is ControllerAction {
  return action !== undefined && CONTROLLER_ACTIONS.some((name) => name === action.kind);
}

/** Does an action on the controller. */
export function act(action: ControllerAction, effects: FaultEffects): void {
  if (action.kind === 'event') effects.event(action.event);
  else effects[action.kind]();
}

/**
 * The faults of an emulated controller, which may be changed at any time. A fault is a text as in
 * `on=write,nth=10,status=write-fault`, or an object with the same parts; docs/faults.md has the grammar.
 *
 * All faults are asked about each command, in the order in which they were added: delays add up, and the first other action is
 * done. The same faults strike the same commands: chance follows from their seeds.
 *
 * @example
 * const id = controller.faults.add('on=read,lba=0-7,delay=2s');
 * controller.faults.remove(id);
 */
export class Faults {
  readonly #plan: FaultPlan;
  readonly #effects: FaultEffects;

  /** @internal */
  constructor(plan: FaultPlan, effects: FaultEffects) {
    this.#plan = plan;
    this.#effects = effects;
  }

  /**
   * Adds a fault.
   * @returns its id
   * @throws TypeError ERR_INVALID_ARG_VALUE that names the part that is wrong, and what may stand there
   */
  add(fault: string | FaultSpec): number {
    return this.#plan.add(parseFault(fault));
  }

  /** Takes a fault away; commands that it has struck stay struck. False when there is none with the id. */
  remove(id: number): boolean {
    return this.#plan.remove(id);
  }

  /** Takes all faults away. Returns how many there were. */
  clear(): number {
    return this.#plan.clear();
  }

  /** All faults, with what they have done so far. */
  list(): FaultState[] {
    return this.#plan.list();
  }

  /**
   * Does something to the controller now: `fatal`, `event=…`, `disconnect` or `remove`, as a text or an object.
   * @throws TypeError ERR_INVALID_ARG_VALUE for anything else
   */
  inject(action: string | FaultSpec): void {
    act(parseControllerAction(action), this.#effects);
  }
}
