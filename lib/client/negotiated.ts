// SPDX-License-Identifier: MIT
import type { Capabilities, NegotiatedLimits } from '../protocol';

/** The result of the negotiation with a server. */
export interface Negotiated {
  /** The major version of the protocol, which is 0. */
  readonly major: number;
  /** The minor version that both speak. */
  readonly minor: number;
  /** What this side announced. */
  readonly client: Capabilities;
  /** What the server announced; the defaults of the specification where it said nothing. */
  readonly server: Capabilities;
  /** The server's version data as it came, null when it sent none. */
  readonly serverJson: unknown;
  /** What this side obeys when it sends. */
  readonly limits: NegotiatedLimits;
}
