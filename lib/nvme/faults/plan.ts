// SPDX-License-Identifier: MIT
import { Xoshiro128 } from '../../random';
import { BROADCAST_NSID, SqeWord, joinWords } from '../spec';
import { drawDelay } from './delay';
import type { CommandAction, CommandTarget, ControllerAction, Fault, RegisterTarget } from './fault';

/** What happens to one command or register access. */
export interface Strike {
  /** Milliseconds that it is late. */
  readonly delay: number;
  /** Whether it completes without an interrupt. */
  readonly silent: boolean;
  /** Undefined when it is only late or silent. */
  readonly action: CommandAction | ControllerAction | undefined;
  /** What random numbers of the action follow from, 32 bits. */
  readonly seed: number;
}

/** A fault, and what it has done so far. */
export interface FaultState {
  /** Names the fault, from 1, in the order in which faults were added. */
  readonly id: number;
  /** The fault as a text. */
  readonly fault: string;
  /** Commands or accesses so far that matched. */
  readonly matched: number;
  /** How many of them it has struck. */
  readonly struck: number;
}

/** A fault while it waits for what it strikes. */
class Trap {
  readonly id: number;
  readonly fault: Fault;
  readonly random: Xoshiro128;
  matched = 0;
  struck = 0;

  constructor(id: number, fault: Fault) {
    this.id = id;
    this.fault = fault;
    this.random = Xoshiro128.fromSeed(fault.occasion.seed);
  }

  /** Whether it cannot strike any more. */
  get spent(): boolean {
    const { nth, count } = this.fault.occasion;
    return this.struck >= count || (nth !== undefined && this.matched >= nth);
  }

  /** Counts something that matches, and tells whether it is to be struck. */
  isDue(): boolean {
    if (this.spent) return false;
    const { nth, every, probability } = this.fault.occasion;
    this.matched++;
    if (nth !== undefined) return this.matched === nth;
    if (this.matched % every !== 0) return false;
    return probability === 1 || this.random.fraction() < probability;
  }
}

/** The faults of a controller, in order, and which commands and register accesses they strike. */
export class FaultPlan {
  /** Whether a command may be struck. While it is false, {@link command} need not be called. */
  strikesCommands = false;
  /** Whether a register access may be struck, see {@link strikesCommands}. */
  strikesRegisters = false;
  readonly #traps = new Map<number, Trap>();
  #lastId = 0;

  /** Adds a fault behind the others. Returns its id. */
  add(fault: Fault): number {
    const id = ++this.#lastId;
    this.#traps.set(id, new Trap(id, fault));
    this.#review();
    return id;
  }

  /** Takes a fault away. False when there is none with the id. */
  remove(id: number): boolean {
    const found = this.#traps.delete(id);
    this.#review();
    return found;
  }

  /** Takes all faults away. Returns how many there were. */
  clear(): number {
    const { size } = this.#traps;
    this.#traps.clear();
    this.#review();
    return size;
  }

  /** All faults, those too that have done all that they will. */
  list(): FaultState[] {
    return Array.from(this.#traps.values(), ({ id, fault, matched, struck }) => ({
      id,
      fault: fault.text,
      matched,
      struck,
    }));
  }

  /**
   * What happens to the command at word `at`; null for nothing.
   * @param queueId submission queue that it came by
   */
  command(queueId: number, words: Int32Array | Uint32Array, at: number): Strike | null {
    return this.#strike(
      ({ target }) => target.kind === 'command' && matchesCommand(target, queueId, words, at),
    );
  }

  /** What happens to an access of BAR 0; null for nothing. */
  register(offset: number, length: number, access: 'read' | 'write'): Strike | null {
    return this.#strike(
      ({ target }) => target.kind === 'register' && matchesRegister(target, offset, length, access),
    );
  }

  /** Every fault counts what matches it. Delays add up, and the first action is done. */
  #strike(matches: (fault: Fault) => boolean): Strike | null {
    let struck = false;
    let delay = 0;
    let silent = false;
    let actor: Trap | undefined;
    for (const trap of this.#traps.values()) {
      const { fault } = trap;
      if (!matches(fault) || !trap.isDue()) continue;
      if (fault.action !== undefined && actor !== undefined) continue;
      if (fault.action !== undefined) actor = trap;
      if (fault.delay !== undefined) delay += drawDelay(fault.delay, trap.random);
      silent ||= fault.silent;
      trap.struck++;
      struck = true;
    }
    if (!struck) return null;
    this.#review();
    return { delay, silent, action: actor?.fault.action, seed: actor?.random.next() ?? 0 };
  }

  /** Only faults that may strike yet cost anything. */
  #review(): void {
    const live = [...this.#traps.values()].filter(({ spent }) => !spent);
    this.strikesCommands = live.some(({ fault }) => fault.target.kind === 'command');
    this.strikesRegisters = live.some(({ fault }) => fault.target.kind === 'register');
  }
}

function matchesCommand(
  { opcodes, queue, namespace, lba }: CommandTarget,
  queueId: number,
  words: Int32Array | Uint32Array,
  at: number,
): boolean {
  const opcode = (words[at] as number) & 0xff;
  if (opcodes[queueId === 0 ? 256 + opcode : opcode] === 0) return false;
  if (queue !== undefined && queue !== queueId) return false;
  if (namespace !== undefined) {
    const nsid = (words[at + SqeWord.nsid] as number) >>> 0;
    if (nsid !== namespace && nsid !== BROADCAST_NSID) return false;
  }
  if (lba === undefined) return true;
  const first = joinWords(
    (words[at + SqeWord.cdw10] as number) >>> 0,
    (words[at + SqeWord.cdw11] as number) >>> 0,
  );
  const blocks = ((words[at + SqeWord.cdw12] as number) & 0xffff) + 1;
  return first <= lba[1] && first + blocks > lba[0];
}

function matchesRegister(
  { range: [first, last], access }: RegisterTarget,
  offset: number,
  length: number,
  made: 'read' | 'write',
): boolean {
  return (access === undefined || access === made) && offset <= last && offset + length > first;
}
