// SPDX-License-Identifier: MIT
import { Socket } from '../native';
import { CommandError, Connection, Errno, type CommandReply } from '../transport';

/** How a twin socket reports and waits. */
export interface TwinSocketOptions {
  /** Name of the client, for messages. */
  readonly name: string;
  /** Time-out of our requests, in milliseconds. */
  readonly messageTimeout: number;
  /** Largest message, with its header, in bytes. */
  readonly maxMessageSize: number;
}

/**
 * The socket for our commands and their replies (vfio-user, VFIO_USER_VERSION, "Reply"). It ends with the client's main
 * connection, and the other way round.
 */
export class TwinSocket {
  /** Our end. */
  readonly connection: Connection;
  readonly #far: Socket;

  /** @throws VfioUserError ERR_VFIO_USER_SYSTEM (EMFILE) */
  constructor(main: Connection, options: TwinSocketOptions) {
    const [near, far] = Socket.pair();
    this.#far = far;
    try {
      this.connection = new Connection(near, {
        ...options,
        name: `${options.name} (twin socket)`,
        role: 'server',
        onCommand: () => {
          throw new CommandError(Errno.EINVAL, 'commands of a client belong on its main socket');
        },
        onClose: (error) => {
          far.close();
          // Our commands cannot be sent any more, and a device that cannot reach the client's memory does wrong things.
          if (error !== null) main.close(error);
        },
      });
    } catch (error) {
      // It could not be watched: the process has no descriptor left.
      near.close();
      far.close();
      throw error;
    }
    main.pairWith(this.connection);
  }

  /** The reply to VERSION that hands the client its end, as its first descriptor. */
  reply(payload: Uint8Array): CommandReply {
    return {
      payload,
      fds: [this.#far.fd],
      sent: () => {
        this.#far.close();
      },
    };
  }
}
