// SPDX-License-Identifier: MIT
import type { ClientView } from './client-view';
import type { FeatureSet } from './feature-set';
import type { NamespaceSet } from './namespace-set';
import type { Counters } from './statistics';

/** What I/O commands work with. */
export interface IoContext {
  readonly namespaces: Pick<NamespaceSet, 'find' | 'absence' | 'addressed'>;
  /** Greatest transfer of a command in bytes. */
  readonly maxTransfer: number;
  readonly view: ClientView;
  readonly features: Pick<FeatureSet, 'writeThrough'>;
  readonly counters: Counters;
  /** Told why a flush has failed. */
  readonly onWarning: (reason: string) => void;
}
