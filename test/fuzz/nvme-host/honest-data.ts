// SPDX-License-Identifier: MIT
/** What an honest controller says of itself, and what its blocks read as. */
import {
  IdentifyCns,
  encodeIdentifyController,
  encodeIdentifyNamespace,
  encodeIdentifyNvmController,
  encodeNamespaceDescriptors,
  encodeNamespaceList,
  parseVersion,
} from '../../../lib/nvme/spec';

export const BAR_BYTES = 0x4000;
export const PAGE = 4096;
export const BLOCK = 512;
const BLOCKS = 1 << 20;
export const VECTORS = 4;
const SERIAL = 'HONEST';

/** What the words of a block read as. */
export function patternOf(lba: number): number {
  return (lba * 2654435761) >>> 0;
}

const IDENTIFY: Readonly<Record<number, Uint8Array>> = {
  [IdentifyCns.namespace]: encodeIdentifyNamespace({
    nsze: BLOCKS,
    ncap: BLOCKS,
    nuse: BLOCKS,
    lbafs: [{ ms: 0, ds: Math.log2(BLOCK), rp: 0 }],
  }),
  [IdentifyCns.controller]: encodeIdentifyController({
    vid: 0x4e58,
    sn: SERIAL,
    mn: 'hostile',
    fr: '1',
    mdts: 5,
    ver: parseVersion('2.0'),
    nn: 1,
    sqes: 0x66,
    cqes: 0x44,
    oncs: 0x1f,
  }),
  [IdentifyCns.activeNamespaces]: encodeNamespaceList([1]),
  [IdentifyCns.namespaceDescriptors]: encodeNamespaceDescriptors({ csi: 0 }),
  [IdentifyCns.commandSetController]: encodeIdentifyNvmController({}),
};
const NO_DATA = new Uint8Array(4096);

export function identifyData(cns: number): Uint8Array {
  return IDENTIFY[cns] ?? NO_DATA;
}
