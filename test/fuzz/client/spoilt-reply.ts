// SPDX-License-Identifier: MIT
import { HeaderFlag } from '../../../lib/protocol';
import type { Header } from '../../../lib/protocol/header';
import type { Descriptors } from '../descriptors';
import { frame } from '../requests';
import type { Answer } from './steps';

/** A reply as it goes out: its bytes, and the descriptors with them. */
export interface ReplyBytes {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
}

/** Makes of an honest answer the reply that an {@link Answer} wants instead. */
export function spoiltReply(
  { how, value, at, bytes = new Uint8Array(0), fds: kinds }: Answer,
  { id, command }: Pick<Header, 'id' | 'command'>,
  honest: { readonly payload: Uint8Array; readonly fds?: readonly number[] },
  descriptors: Descriptors,
): ReplyBytes {
  let { payload } = honest;
  if (how === 'bytes') payload = bytes;
  if (how === 'short') payload = payload.slice(0, Math.max(0, payload.length - 1 - (value % 40)));
  if (how === 'long') payload = new Uint8Array([...payload, ...new Uint8Array(1 + (value % 100))]);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (how === 'patch' && payload.length >= 4) view.setUint32(at % (payload.length - 3), value, true);
  if (how === 'patch 64' && payload.length >= 8)
    view.setBigUint64((at % (payload.length - 7)) & ~7, BigInt(value) << BigInt(value % 33), true);
  const error = how === 'error' || how === 'error without errno';
  return {
    bytes: frame(
      how === 'command' ? command ^ 1 : command,
      error ? new Uint8Array(0) : payload,
      how === 'id' ? id ^ 1 : id,
      {
        flags: how === 'flags' ? value : error ? HeaderFlag.reply | HeaderFlag.error : HeaderFlag.reply,
        errno: how === 'error' ? value % 200 : 0,
        size: how === 'size' ? value : 16 + (error ? 0 : payload.length),
      },
    ),
    fds: kinds?.map((kind) => descriptors.get(kind)) ?? honest.fds ?? [],
  };
}
