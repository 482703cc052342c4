// SPDX-License-Identifier: MIT
import {
  CommandSetId,
  IDENTIFY_BYTES,
  IdentifyCns,
  LogPageAttributes,
  OptionalNvmCommands,
  encodeIdentifyController,
  encodeIdentifyNamespace,
  encodeIdentifyNvmController,
  encodeNamespaceDescriptors,
  encodeNamespaceList,
  identifyCdw10,
  identifyCdw11,
  parseVersion,
} from '../spec';
import { ASYNC_EVENT_LIMIT } from './async-events';
import { ERROR_LOG_ENTRIES } from './error-log';
import { CRITICAL_TEMPERATURE, KEEP_ALIVE_UNIT, WARNING_TEMPERATURE } from './feature-set';
import { NAMESPACE_ID, type Namespace } from './namespace';
import type { ResolvedOptions } from './options';
import { Outcome } from './outcome';

/** VS and VER. Not all that 2.0 makes mandatory on top of 1.4 is there. */
export const NVME_VERSION = parseVersion('1.4');
/** FR, at most 8 characters. */
export const FIRMWARE_REVISION = '1.0';
/** PCI vendor, device and subsystem ids: those of SPDK's vfio-user controller, which tools and guests know. */
export const PciIds = { vendor: 0x4e58, device: 0x0001, subsystemVendor: 0x4e58, subsystem: 0 } as const;

/** Namespace ids from here on are never those of a namespace (NVMe base 2.0, 3.2.1.2). */
const NSID_LIMIT = 0xffff_fffe;

/** Answers Identify: the data, or the {@link Outcome} of a failure. */
export class Identify {
  readonly #controller: Uint8Array;
  readonly #namespace: Uint8Array;
  readonly #descriptors: Uint8Array;

  constructor(options: ResolvedOptions, namespace: Namespace) {
    const { blocks, blockSize, nguid, uuid } = namespace;
    this.#controller = controllerData(options, namespace);
    this.#namespace = encodeIdentifyNamespace({
      nsze: blocks,
      ncap: blocks,
      nuse: blocks,
      nguid,
      nvmcap: namespace.bytes,
      lbafs: [{ ms: 0, ds: Math.log2(blockSize), rp: 0 }],
    });
    this.#descriptors = encodeNamespaceDescriptors({ nguid, uuid, csi: CommandSetId.nvm });
  }

  /** The data for the CNS, CSI and namespace id of a command (NVMe base 2.0, 5.17). */
  answer(cdw10: number, cdw11: number, nsid: number): Uint8Array | number {
    const { cns } = identifyCdw10.decode(cdw10);
    const { csi } = identifyCdw11.decode(cdw11);
    switch (cns) {
      case IdentifyCns.namespace:
        return nsid === NAMESPACE_ID ? this.#namespace : Outcome.invalidNamespace;
      case IdentifyCns.controller:
        return this.#controller;
      case IdentifyCns.activeNamespaces:
        return activeNamespaces(nsid);
      case IdentifyCns.namespaceDescriptors:
        return nsid === NAMESPACE_ID ? this.#descriptors : Outcome.invalidNamespace;
      case IdentifyCns.commandSetNamespace:
        if (csi !== CommandSetId.nvm) return Outcome.invalidField;
        // The fields are about storage tags and protection information, of which there are none.
        return nsid === NAMESPACE_ID ? new Uint8Array(IDENTIFY_BYTES) : Outcome.invalidNamespace;
      case IdentifyCns.commandSetController:
        return csi === CommandSetId.nvm ? encodeIdentifyNvmController({}) : Outcome.invalidField;
      case IdentifyCns.commandSetActiveNamespaces:
        return csi === CommandSetId.nvm ? activeNamespaces(nsid) : Outcome.invalidField;
      default:
        return Outcome.invalidField;
    }
  }
}

/** Namespace ids above `nsid`, which may be 0. */
function activeNamespaces(nsid: number): Uint8Array | number {
  if (nsid >= NSID_LIMIT) return Outcome.invalidNamespace;
  return encodeNamespaceList(nsid < NAMESPACE_ID ? [NAMESPACE_ID] : []);
}

function controllerData(options: ResolvedOptions, namespace: Namespace): Uint8Array {
  const { compare, writeZeroes, saveSelectFeatures } = OptionalNvmCommands;
  return encodeIdentifyController({
    vid: PciIds.vendor,
    ssvid: PciIds.subsystemVendor,
    sn: options.serial,
    mn: options.model,
    fr: FIRMWARE_REVISION,
    mdts: Math.log2(options.maxTransfer / 4096),
    cntlid: 1,
    ver: NVME_VERSION,
    cntrltype: 1,
    rab: 5,
    acl: 3,
    aerl: ASYNC_EVENT_LIMIT - 1,
    // One slot, which is read-only.
    frmw: 0x03,
    lpa: LogPageAttributes.commandEffects | LogPageAttributes.extendedData,
    elpe: ERROR_LOG_ENTRIES - 1,
    wctemp: WARNING_TEMPERATURE,
    cctemp: CRITICAL_TEMPERATURE,
    tnvmcap: namespace.bytes,
    kas: KEEP_ALIVE_UNIT / 100,
    sqes: 0x66,
    cqes: 0x44,
    nn: NAMESPACE_ID,
    oncs: compare | writeZeroes | saveSelectFeatures,
    // Flush takes the broadcast namespace id: bits 2:1 are 3.
    vwc: namespace.backend.volatileCache ? 0x07 : 0x06,
    // Data blocks and segments at any address; no bit buckets, and no list that is longer than the data.
    sgls: 1,
    subnqn: options.subsystemNqn,
    psds: [{ max_power: 2500 }],
  });
}
