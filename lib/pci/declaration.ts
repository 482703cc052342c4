// SPDX-License-Identifier: MIT
import type { BarLocation } from './capabilities';

/** A BAR that a device has. */
export interface BarDeclaration {
  /** A 64-bit BAR takes two indexes. */
  readonly type: 'memory32' | 'memory64' | 'io';
  /** Bytes, a power of two: of memory at least 16, of I/O 4 to 256. */
  readonly size: number;
  readonly prefetchable?: boolean;
}

/** A capability that a device has. They are laid out from byte 40h (extended ones from 100h) in the order given. */
export type CapabilityDeclaration =
  | { readonly kind: 'power-management' }
  | { readonly kind: 'express'; readonly functionLevelReset?: boolean }
  | {
      readonly kind: 'msi';
      /** Messages that the device can send. */
      readonly vectors: 1 | 2 | 4 | 8 | 16 | 32;
      /** Takes addresses of 64 bits, as a PCI Express endpoint must. Default true. */
      readonly address64?: boolean;
      /** Has mask and pending bits. Default false. */
      readonly perVectorMasking?: boolean;
    }
  | {
      readonly kind: 'msix';
      readonly vectors: number;
      readonly table: BarLocation;
      readonly pba: BarLocation;
    }
  | { readonly kind: 'vendor'; readonly data: Uint8Array }
  | { readonly kind: 'serial-number'; readonly serialNumber: bigint }
  | { readonly kind: 'advanced-errors' };

/** What a configuration space is built from. */
export interface ConfigSpaceDeclaration {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  readonly revisionId?: number;
  /** Base class, subclass and programming interface, 24 bits. */
  readonly classCode: number;
  /** 0 none (default), 1 to 4 INTA to INTD. */
  readonly interruptPin?: number;
  /** BAR 0 to 5; undefined for one that the device lacks. */
  readonly bars?: readonly (BarDeclaration | undefined)[];
  readonly capabilities?: readonly CapabilityDeclaration[];
  /** 4096 (default), or 256 for conventional PCI. */
  readonly size?: 256 | 4096;
}
