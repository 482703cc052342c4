// SPDX-License-Identifier: MIT
import type { ClientMemory } from '../../server/device-model';
import type { ClientView } from './client-view';
import { DataPointer, type FetchedLists } from './data-pointer';
import { Outcome } from './outcome';

/** What a command that runs asks before it goes on. */
export interface Alive {
  /** Whether the command still matters: not after a reset or an Abort, or when the client is gone. */
  (): boolean;
  /** Asked in its place before the command changes what is stored, or the client's memory: from then on it cannot be aborted. */
  commit(): boolean;
}

/** Memory of a command that runs, beside its data: its parts, the lists that tell of them, and promises. */
const BESIDE_DATA = 32 << 10;

/** Most memory that a command with so many bytes of data needs while it runs: data comes in pieces, and is then put together. */
export function commandBytes(length: number): number {
  return 2 * length + BESIDE_DATA;
}

/** The parts of the client's memory that hold the data of a command, in order. */
export interface Parts {
  /** An {@link Outcome}. There are no parts unless it is success. */
  readonly outcome: number;
  readonly addresses: readonly number[];
  readonly lengths: readonly number[];
}

/**
 * Lists that one command may need. Each tells of 511 pages of 4 KiB, and a command moves at most 1 MiB. When there are
 * more, the host moves them about.
 */
const MAX_LISTS = 4;

/**
 * Resolves a data pointer whose lists may have to be fetched by message.
 *
 * @param length bytes of data
 * @param resolve resolves the pointer with the lists that were fetched so far, and returns an {@link Outcome}
 */
export async function resolveParts(
  view: ClientView,
  length: number,
  alive: Alive,
  resolve: (pointer: DataPointer, lists: FetchedLists) => number,
): Promise<Parts> {
  const pointer = new DataPointer(view, Math.ceil(length / 4096) * 4096);
  const lists: FetchedLists = new Map();
  for (;;) {
    const outcome = resolve(pointer, lists);
    const { missingList, missingBytes, count } = pointer;
    if (missingList < 0) {
      return {
        outcome,
        addresses: Array.from(pointer.addresses.subarray(0, count)),
        lengths: Array.from(pointer.lengths.subarray(0, count)),
      };
    }
    const bytes =
      lists.size < MAX_LISTS ? await readMemory(view, missingList, missingBytes, alive) : undefined;
    if (bytes === undefined || !alive()) {
      return { outcome: Outcome.dataTransferError, addresses: [], lengths: [] };
    }
    lists.set(missingList, new Uint32Array(bytes.slice().buffer));
  }
}

/** Writes `data` to the parts. Returns an {@link Outcome}. */
export async function writeParts(
  view: ClientView,
  parts: Parts,
  data: Uint8Array,
  alive: Alive,
): Promise<number> {
  let at = 0;
  for (const [i, address] of parts.addresses.entries()) {
    const length = parts.lengths[i] as number;
    const memory = await reach(view, alive);
    // Who is told that the command was aborted uses the memory for something else.
    if (memory === null || !alive.commit()) return Outcome.dataTransferError;
    try {
      await memory.write(address, data.subarray(at, at + length));
    } catch {
      return Outcome.dataTransferError; // Whatever the reason is, the status is all that the host can be told.
    }
    at += length;
  }
  return Outcome.success;
}

/** Reads `length` bytes from the parts. Returns undefined when a part cannot be read. */
export async function readParts(
  view: ClientView,
  parts: Parts,
  length: number,
  alive: Alive,
): Promise<Uint8Array | undefined> {
  const data = new Uint8Array(length);
  let at = 0;
  for (const [i, address] of parts.addresses.entries()) {
    const bytes = await readMemory(view, address, parts.lengths[i] as number, alive);
    if (bytes === undefined) return undefined;
    data.set(bytes, at);
    at += bytes.length;
  }
  return data;
}

/** Fetches the data of an admin command, which has PRPs. Returns an {@link Outcome} when that fails. */
export async function receive(
  view: ClientView,
  { prp1, prp2 }: { readonly prp1: number; readonly prp2: number },
  length: number,
  alive: Alive,
): Promise<Uint8Array | number> {
  const parts = await resolveParts(view, length, alive, (pointer, lists) =>
    pointer.resolve(prp1, prp2, length, false, lists),
  );
  if (parts.outcome !== Outcome.success) return parts.outcome;
  return (await readParts(view, parts, length, alive)) ?? Outcome.dataTransferError;
}

/** The client's memory once it can be reached; null when the command does not matter any more. */
async function reach(view: ClientView, alive: Alive): Promise<ClientMemory | null> {
  await view.untilReachable();
  return alive() ? view.memory : null;
}

async function readMemory(
  view: ClientView,
  address: number,
  length: number,
  alive: Alive,
): Promise<Uint8Array | undefined> {
  const memory = await reach(view, alive);
  if (memory === null) return undefined;
  try {
    const bytes = await memory.read(address, length);
    return bytes.length === length ? bytes : undefined;
  } catch {
    return undefined; // Whatever the reason is, the status is all that the host can be told.
  }
}
