// SPDX-License-Identifier: MIT
import { channel } from 'node:diagnostics_channel';
import { debuglog } from 'node:util';
import { commandName } from '../protocol/commands';
import { isError, isNoReply, isReply, type Header } from '../protocol/header';

/**
 * A message of the protocol. Published on the diagnostics channels `vfio-user:request` and `vfio-user:reply`, in both roles and
 * both directions: a request that was `received` is a command of the peer.
 */
export interface MessageTrace {
  /** Name of the device or client, such as its socket path. */
  readonly endpoint: string;
  /** Whether this side sent or received it. */
  readonly direction: 'sent' | 'received';
  /** Message id. A reply has that of its request; each side has ids of its own. */
  readonly id: number;
  /** Name of the command, such as `REGION_READ`. */
  readonly command: string;
  /** Bytes, with the header. */
  readonly size: number;
  /** True for a request that asks for no reply (vfio-user, "Header", No_reply). */
  readonly noReply: boolean;
  /** Positive errno of an error reply, 0 when it names none; undefined for other messages. */
  readonly errno: number | undefined;
  /** Descriptors that went with the message. */
  readonly fds: number;
}

/** A connection has changed its state. Published on the diagnostics channel `vfio-user:state`. */
export interface StateTrace {
  /** Name of the device or client, such as its socket path. */
  readonly endpoint: string;
  /** The new state, such as `closed`. */
  readonly state: string;
  /** Why; empty when this side closed the connection. */
  readonly detail: string;
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
  if (stateChannel.hasSubscribers) {
    const change: StateTrace = { endpoint, state, detail };
    stateChannel.publish(change);
  }
  if (debugging) debug('%s %s %s', endpoint, state, detail);
}
