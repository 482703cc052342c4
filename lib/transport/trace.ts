// SPDX-License-Identifier: MIT
import { channel } from 'node:diagnostics_channel';
import { debuglog } from 'node:util';
import { commandName } from '../protocol/commands';
import { isError, isNoReply, isReply, type Header } from '../protocol/header';

/** What subscribers of the diagnostics channels receive. */
export interface MessageTrace {
  /** Name of the endpoint. */
  readonly endpoint: string;
  readonly direction: 'sent' | 'received';
  readonly id: number;
  readonly command: string;
  /** Bytes, with the header. */
  readonly size: number;
  readonly noReply: boolean;
  /** Errno of an error reply, undefined otherwise. */
  readonly errno: number | undefined;
  /** Descriptors that went with the message. */
  readonly fds: number;
}

const requestChannel = channel('vfio-user:request');
const replyChannel = channel('vfio-user:reply');
const stateChannel = channel('vfio-user:state');
const debug = debuglog('vfio-user');
const debugging = debug.enabled;

/** Whether anybody listens. Ask before the arguments of {@link traceMessage} are made. */
export function tracing(): boolean {
  return debugging || requestChannel.hasSubscribers || replyChannel.hasSubscribers;
}

/** Publishes a message on `vfio-user:request` or `vfio-user:reply`, and prints it with `NODE_DEBUG=vfio-user`. */
export function traceMessage(
  endpoint: string,
  direction: 'sent' | 'received',
  header: Readonly<Header>,
  fds: number,
): void {
  const reply = isReply(header.flags);
  const message: MessageTrace = {
    endpoint,
    direction,
    id: header.id,
    command: commandName(header.command),
    size: header.size,
    noReply: isNoReply(header.flags),
    errno: isError(header.flags) ? header.error : undefined,
    fds,
  };
  (reply ? replyChannel : requestChannel).publish(message);
  debug(
    '%s %s %s %s id=%d size=%d fds=%d%s%s',
    endpoint,
    direction,
    reply ? 'reply' : 'request',
    message.command,
    message.id,
    message.size,
    fds,
    message.noReply ? ' no-reply' : '',
    message.errno === undefined ? '' : ` errno=${message.errno}`,
  );
}

/** Publishes a change of state on `vfio-user:state`. */
export function traceState(endpoint: string, state: string, detail: string): void {
  if (stateChannel.hasSubscribers) stateChannel.publish({ endpoint, state, detail });
  if (debugging) debug('%s %s %s', endpoint, state, detail);
}
