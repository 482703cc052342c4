// SPDX-License-Identifier: MIT
import type { AsyncEvent } from '../spec';
import type { Delay } from './delay';
import type { RegisterRange } from './names';

/**
 * A fault: which commands or register accesses it strikes, and what happens to them. Each property is a part of the text form
 * `on=write,nth=10,status=write-fault` with the same name and meaning; a part that stands alone is `true`. docs/faults.md
 * has the grammar.
 */
export interface FaultSpec {
  /** Commands: names such as `read`, `identify`, `io:0x02`, `admin:0xc0`, or all: `io`, `admin`. Several are joined by `+`. */
  readonly on?: string;
  /** Id of the submission queue, 0 to 65535; 0 is that of the admin commands. */
  readonly queue?: number;
  /** Namespace id, 1 to 2^32 - 2. Commands for all namespaces are struck too. */
  readonly namespace?: number;
  /** Logical block, or a range of them: `0-7`. Struck is what overlaps it. */
  readonly lba?: number | string;
  /** Registers instead of commands: a name such as `csts`, an offset in BAR 0, a range of them `0x0-0x3f`, `doorbells`, `any`. */
  readonly register?: number | string;
  /** Only reads or only writes of the {@link register}s. */
  readonly access?: 'read' | 'write';
  /** Only the nth of what matches, from 1. */
  readonly nth?: number;
  /** Each nth of what matches. */
  readonly every?: number;
  /** So many times and no more. */
  readonly count?: number;
  /** By chance: above 0, up to 1; or a percentage such as `1%`. */
  readonly probability?: number | string;
  /** What chance follows from, 0 (default) to 2^32 - 1. */
  readonly seed?: number;
  /** Late by so many milliseconds, or by a text such as `2s` or `uniform:1ms:5ms`. Goes with the other actions. */
  readonly delay?: number | string;
  /** Without an interrupt. Goes with the other actions. */
  readonly silent?: boolean;
  /** Fails without being executed: `write-fault`, or type and code, `2/0x80`. */
  readonly status?: string;
  /** The {@link status} says Do Not Retry. */
  readonly dnr?: boolean;
  /** Never completes. */
  readonly hang?: boolean;
  /** Completes twice. */
  readonly twice?: boolean;
  /** Completes with a wrong command id, 0 to 65535: this one, or the bits of its own inverted. */
  readonly cid?: boolean | number;
  /** So many bits, 1 to 4096 (default 1), of the data are inverted: of what a read sends, of what a write stores. */
  readonly flip?: boolean | number;
  /** Only so many logical blocks of a write land, from 0, and it succeeds. */
  readonly torn?: number;
  /** Succeeds without being executed. */
  readonly lost?: boolean;
  /** The controller fails: CSTS.CFS. */
  readonly fatal?: boolean;
  /** Raises an asynchronous event: a name such as `temperature`, or `type/info/log page`. */
  readonly event?: string;
  /** The server disconnects the client. */
  readonly disconnect?: boolean;
  /** The device is pulled out: all its registers read as ones. */
  readonly remove?: boolean;
}

/** Commands by what the queue entry tells of them. */
export interface CommandTarget {
  readonly kind: 'command';
  /** Which commands: index is the opcode, and 256 more for admin commands. */
  readonly opcodes: Uint8Array;
  readonly queue: number | undefined;
  readonly namespace: number | undefined;
  readonly lba: BlockRange | undefined;
}

/** The first and the last logical block. */
export type BlockRange = readonly [first: number, last: number];

/** Accesses of registers, by message. */
export interface RegisterTarget {
  readonly kind: 'register';
  readonly range: RegisterRange;
  readonly access: 'read' | 'write' | undefined;
}

/** When a fault strikes, of all that matches. */
export interface Occasion {
  readonly nth: number | undefined;
  readonly every: number;
  readonly count: number;
  readonly probability: number;
  readonly seed: number;
}

/** What happens to the controller. */
export type ControllerAction =
  | { readonly kind: 'fatal' }
  | { readonly kind: 'event'; readonly event: AsyncEvent }
  | { readonly kind: 'disconnect' }
  | { readonly kind: 'remove' };

/** What happens to the data of a command. */
export type DataAction =
  { readonly kind: 'flip'; readonly bits: number } | { readonly kind: 'torn'; readonly blocks: number };

/** What happens to a command. */
export type CommandAction =
  | {
      readonly kind: 'status';
      /** The 15-bit status field. */
      readonly status: number;
    }
  | { readonly kind: 'hang' | 'twice' | 'lost' }
  | {
      readonly kind: 'cid';
      /** Undefined: the inverted bits of the command's own. */
      readonly cid: number | undefined;
    }
  | DataAction;

/** A fault as it was understood. */
export interface Fault {
  /** Its text. */
  readonly text: string;
  readonly target: CommandTarget | RegisterTarget;
  readonly occasion: Occasion;
  readonly delay: Delay | undefined;
  readonly silent: boolean;
  /** Undefined for one that is only late or silent. */
  readonly action: CommandAction | ControllerAction | undefined;
}
