// SPDX-License-Identifier: MIT
import type { ClientMemory } from '../../server/device-model';
import type { ClientView } from './client-view';
import { DataPointer, type FetchedLists } from './data-pointer';
import { Outcome } from './outcome';

/** Tells whether a command still matters: false after a reset, or when the client is gone. */
export type Alive = () => boolean;

/** Parts of the client's memory, in order. */
export interface Parts {
  readonly outcome: number;
  readonly addresses: readonly number[];
  readonly lengths: readonly number[];
}

/** Lists that one command may need: 511 pages of 4 KiB each, for at most 1 MiB. More means that the host moves them. */
const MAX_LISTS = 4;

/**
 * Resolves a data pointer whose lists may have to be fetched by message.
 *
 * @param length bytes of data
 * @param resolve resolves it, with the lists that were fetched so far
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
      lists.size < MAX_LISTS ? await readMemory(view.memory, missingList, missingBytes) : undefined;
    if (bytes === undefined || !alive()) {
      return { outcome: Outcome.dataTransferError, addresses: [], lengths: [] };
    }
    lists.set(missingList, new Uint32Array(bytes.slice().buffer));
  }
}

/** Writes `data` to the parts. */
export async function writeParts(
  view: ClientView,
  parts: Parts,
  data: Uint8Array,
  alive: Alive,
): Promise<number> {
  let at = 0;
  for (const [i, address] of parts.addresses.entries()) {
    const length = parts.lengths[i] as number;
    if (view.memory === null || !alive()) return Outcome.dataTransferError;
    try {
      await view.memory.write(address, data.subarray(at, at + length));
    } catch {
      return Outcome.dataTransferError; // Whatever it was: the data did not arrive, and the client learns just that.
    }
    at += length;
  }
  return Outcome.success;
}

/** Reads `length` bytes from the parts; undefined when any is not to be had. */
export async function readParts(
  view: ClientView,
  parts: Parts,
  length: number,
  alive: Alive,
): Promise<Uint8Array | undefined> {
  const data = new Uint8Array(length);
  let at = 0;
  for (const [i, address] of parts.addresses.entries()) {
    const bytes = alive() ? await readMemory(view.memory, address, parts.lengths[i] as number) : undefined;
    if (bytes === undefined) return undefined;
    data.set(bytes, at);
    at += bytes.length;
  }
  return data;
}

async function readMemory(
  memory: ClientMemory | null,
  address: number,
  length: number,
): Promise<Uint8Array | undefined> {
  if (memory === null) return undefined;
  try {
    const bytes = await memory.read(address, length);
    return bytes.length === length ? bytes : undefined;
  } catch {
    return undefined; // As in writeParts.
  }
}
