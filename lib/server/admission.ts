// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { isAbstractPath, type PeerCredentials, type Socket } from '../native';

/** Decides who may be a client of a server, by the credentials that the kernel vouches for (unix(7), SO_PEERCRED). */
export class Admission {
  readonly #path: string;
  readonly #accept: ((peer: PeerCredentials) => boolean) | undefined;
  readonly #report: (error: unknown) => void;
  /** Users whose refusal was reported. One who comes again and again must not fill a log. */
  readonly #refused = new Set<number>();

  /**
   * @param path where the server listens
   * @param accept the application's decision
   * @param report told of what `accept` throws, and of users that are refused without it
   */
  constructor(
    path: string,
    accept: ((peer: PeerCredentials) => boolean) | undefined,
    report: (error: unknown) => void,
  ) {
    this.#path = path;
    this.#accept = accept;
    this.#report = report;
  }

  /** Whether a client may stay; closes the socket of one that may not. */
  admits(socket: Socket): boolean {
    try {
      if (this.#decide(socket.peerCredentials())) return true;
    } catch (error) {
      this.#report(error);
    }
    socket.close();
    return false;
  }

  #decide(peer: PeerCredentials): boolean {
    // Only `true` will do: a promise would be true as well.
    if (this.#accept !== undefined) return (this.#accept(peer) as unknown) === true;
    if (!isAbstractPath(this.#path) || peer.uid === 0 || peer.uid === process.geteuid?.()) return true;
    if (!this.#refused.has(peer.uid)) {
      this.#refused.add(peer.uid);
      throw new VfioUserError(
        'ERR_VFIO_USER_CONNECT',
        `Process ${peer.pid} of user ${peer.uid} was refused at ${this.#path}: an abstract socket has no permissions, so ` +
          "only the server's own user and root are served there; listen at a path, or decide with accept()",
      );
    }
    return false;
  }
}
