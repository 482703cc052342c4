// SPDX-License-Identifier: MIT
import { ListeningSocket, Socket, closeFd } from '../../lib/native';
import { Incoming } from '../../lib/transport/incoming';
import { message } from '../client/support';

const MAX_MESSAGE = 1 << 22;

/** A message on its way. */
export interface Passing {
  readonly command: number;
  readonly isReply: boolean;
  readonly payload: Uint8Array;
}

/** What becomes of a message: another payload, or no descriptors. Undefined when it passes as it is. */
export type Change = (passing: Passing) => { payload?: Uint8Array; fds?: 'none' } | undefined;

/** Listens at a path for one client, and passes messages between it and a server, some of them changed. */
export class MessageRelay {
  /** The server's end; becomes its own. */
  readonly endpoint: { readonly fd: number };
  /** Process of the client, once it has connected. */
  clientPid: number | undefined;
  readonly #listener: ListeningSocket;
  readonly #server: Socket;
  readonly #change: Change;
  #client: Socket | undefined;

  constructor(path: string, change: Change) {
    const [near, far] = Socket.pair();
    this.endpoint = { fd: far.fd };
    this.#server = near;
    this.#change = change;
    this.#listener = ListeningSocket.listen(path);
    this.#listener.watch(() => {
      const client = this.#listener.accept();
      if (client === null) return;
      this.#listener.close();
      this.#client = client;
      this.clientPid = client.peerCredentials().pid;
      this.#pass(client, near);
      this.#pass(near, client);
    });
  }

  close(): void {
    this.#listener.close();
    this.#client?.close();
    this.#server.close();
  }

  #pass(from: Socket, to: Socket): void {
    const reader = new Incoming(from, MAX_MESSAGE);
    from.watch(() => {
      while (!from.closed) {
        const heard = reader.next();
        if (heard === null) return;
        if (heard === 'end') {
          this.close();
          return;
        }
        const { id, command, flags, error: errno } = heard.header;
        const { payload } = heard;
        const change = this.#change({ command, isReply: (flags & 0xf) === 1, payload });
        const bytes = message(command, change?.payload ?? payload, { id, flags, errno });
        const fds = Array.from({ length: heard.fds.length }, (_, index) => heard.fds.take(index) ?? -1);
        const sent = change?.fds === 'none' ? [] : fds;
        for (let at = 0; at < bytes.length;) {
          at += to.send(bytes.subarray(at), bytes.length - at, null, 0, at === 0 ? sent : []);
          if (at < bytes.length) to.waitWritable(1000);
        }
        fds.forEach(closeFd);
      }
    });
  }
}
