// SPDX-License-Identifier: MIT
import type { FdList, Reply, Request } from '../transport';

/** Whom a question can be put to: a link, or the connection that is about to become its own. */
export interface Asked {
  readonly name: string;
  request(request: Request): Promise<Reply>;
}

/** An answer of a length that only the server knows: `argsz` is the room that the whole of it needs, in bytes. */
interface Answer {
  readonly argsz: number;
  readonly complete: boolean;
}

/** A question whose answer has a length that only the server knows (vfio-user, "Message sizes"). */
export interface Question<Told extends Answer> {
  readonly command: number;
  /** Bytes that are offered for the answer at first, and at most. */
  readonly room: number;
  readonly mostRoom: number;
  /** Encodes the request; `argsz` is the room for the answer. */
  readonly encode: (argsz: number) => Uint8Array;
  readonly decode: (payload: Uint8Array, fds: FdList) => Told;
}

/**
 * Asks, and asks once more when the answer needs more room than was offered.
 *
 * @returns the answer, which is incomplete when the server needs more than `mostRoom`, or wants yet more the second time; the
 *   descriptors that came with it, which are the caller's; and the room that was offered
 */
export async function ask<Told extends Answer>(
  asked: Asked,
  { command, room, mostRoom, encode, decode }: Question<Told>,
): Promise<{ readonly told: Told; readonly fds: FdList; readonly room: number }> {
  const askOnce = async (argsz: number): Promise<{ told: Told; fds: FdList; room: number }> => {
    const { payload, fds } = await asked.request({ command, payload: encode(argsz), maxReply: argsz });
    try {
      return { told: decode(payload, fds), fds, room: argsz };
    } catch (error) {
      fds.close();
      throw error;
    }
  };
  const first = await askOnce(room);
  const { complete, argsz } = first.told;
  if (complete || argsz <= room || argsz > mostRoom) return first;
  first.fds.close();
  return askOnce(argsz);
}
