// SPDX-License-Identifier: MIT
import {
  BROADCAST_NSID,
  CommandSetId,
  IDENTIFY_BYTES,
  type IdentifyNamespaceInput,
  type LbaFormat,
  IdentifyCns,
  LogPageAttributes,
  NamespaceFeatures,
  OptionalAdminCommands,
  OptionalEvents,
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
import type { Deallocation } from '../backends';
import { ASYNC_EVENT_LIMIT } from './async-events';
import { COPY_BYTES, COPY_RANGES, COPY_RANGE_LIMIT } from './copy-command';
import { ERROR_LOG_ENTRIES } from './error-log';
import { LBA_FORMATS } from './format';
import { CRITICAL_TEMPERATURE, KEEP_ALIVE_UNIT, WARNING_TEMPERATURE } from './feature-set';
import type { Namespace } from './namespace';
import type { NamespaceSet } from './namespace-set';
import type { ResolvedOptions } from './options';
import { Outcome } from './outcome';

/** VS and VER. Not all that 2.0 makes mandatory on top of 1.4 is there. */
export const NVME_VERSION = parseVersion('1.4');
/** FR, at most 8 characters. */
export const FIRMWARE_REVISION = '1.0';
/** PCI vendor, device and subsystem ids: those of SPDK's vfio-user controller, which tools and guests know. */
export const PciIds = { vendor: 0x4e58, device: 0x0001, subsystemVendor: 0x4e58, subsystem: 0 } as const;

/** CNTLID of the only controller of the subsystem. */
export const CONTROLLER_ID = 1;
/** DLFEAT: what deallocated blocks read as, and that Write Zeroes takes DEAC. */
const READS_ZERO = 0x01;
const DEALLOCATE_BY_WRITE_ZEROES = 0x08;
const OFFERED_COMMANDS =
  OptionalNvmCommands.compare |
  OptionalNvmCommands.writeUncorrectable |
  OptionalNvmCommands.datasetManagement |
  OptionalNvmCommands.writeZeroes |
  OptionalNvmCommands.saveSelectFeatures |
  OptionalNvmCommands.timestamp |
  OptionalNvmCommands.verify |
  OptionalNvmCommands.copy;
/** FUSES: Compare and Write. */
const FUSED_COMPARE_AND_WRITE = 1;
/** OCFS: source ranges of Copy of format 0. */
const COPY_FORMAT_0 = 1;

/** FPI: how much of a format is left is told. */
const FORMAT_PROGRESS = 0x80;

/** Offset of NSTAT in the data that does not depend on the command set, and its bit NRDY. */
const NSTAT = 14;
const NAMESPACE_READY = 0x01;
/** What is told of a namespace id that has no namespace. */
const NOTHING = new Uint8Array(IDENTIFY_BYTES);

/** Namespace ids from here on are never those of a namespace (NVMe base 2.0, 3.2.1.2). */
const NSID_LIMIT = 0xffff_fffe;

/** Answers Identify: the data, or the {@link Outcome} of a failure. */
export class Identify {
  readonly #options: ResolvedOptions;
  readonly #namespaces: NamespaceSet;
  readonly #shadows: boolean;

  /** @param shadows whether there is Doorbell Buffer Config */
  constructor(options: ResolvedOptions, namespaces: NamespaceSet, shadows: boolean) {
    this.#options = options;
    this.#namespaces = namespaces;
    this.#shadows = shadows;
  }

  /** The data for the CNS, CSI, CNTID and namespace id of a command (NVMe base 2.0, 5.17). */
  answer(cdw10: number, cdw11: number, nsid: number): Uint8Array | number {
    const { cns, controllerId } = identifyCdw10.decode(cdw10);
    const { csi } = identifyCdw11.decode(cdw11);
    const { active, allocated } = this.#namespaces;
    switch (cns) {
      case IdentifyCns.namespace:
        // What the namespaces that can be made have in common.
        if (nsid === BROADCAST_NSID && this.#namespaces.manageable) return encodeIdentifyNamespace(COMMON);
        return this.#data(nsid, this.#namespaces.findActive(nsid), namespaceData);
      case IdentifyCns.controller:
        return controllerData(this.#options, this.#namespaces, this.#shadows);
      case IdentifyCns.activeNamespaces:
        return namespaceList(active, nsid);
      case IdentifyCns.namespaceDescriptors:
        return this.#descriptors(nsid);
      case IdentifyCns.commandSetNamespace:
        if (csi !== CommandSetId.nvm) return Outcome.invalidField;
        // The fields are about storage tags and protection information, of which there are none.
        return this.#data(nsid, this.#namespaces.findActive(nsid), () => NOTHING);
      case IdentifyCns.commandSetController:
        return csi === CommandSetId.nvm ? encodeIdentifyNvmController({}) : Outcome.invalidField;
      case IdentifyCns.commandSetActiveNamespaces:
        return csi === CommandSetId.nvm ? namespaceList(active, nsid) : Outcome.invalidField;
      case IdentifyCns.independentNamespace:
        return this.#data(nsid, this.#namespaces.findActive(nsid), independentData);
      case IdentifyCns.allocatedNamespaces:
        return namespaceList(allocated, nsid);
      case IdentifyCns.allocatedNamespace:
        return this.#data(nsid, this.#namespaces.findAllocated(nsid), namespaceData);
      case IdentifyCns.attachedControllers:
        if (!this.#namespaces.isValid(nsid)) return Outcome.invalidNamespace;
        return controllerList(controllerId, this.#namespaces.findActive(nsid) !== null);
      case IdentifyCns.controllers:
        return controllerList(controllerId, true);
      default:
        return Outcome.invalidField;
    }
  }

  /** An id that could have a namespace but has none is answered with zeros (NVMe base 2.0, 5.17.2.1). */
  #data(
    nsid: number,
    namespace: Namespace | null,
    encode: (namespace: Namespace) => Uint8Array,
  ): Uint8Array | number {
    if (namespace !== null) return encode(namespace);
    return this.#namespaces.isValid(nsid) ? NOTHING : Outcome.invalidNamespace;
  }

  #descriptors(nsid: number): Uint8Array | number {
    const namespace = this.#namespaces.findActive(nsid);
    if (namespace === null) return this.#namespaces.absence(nsid);
    const { eui64, nguid, uuid } = namespace;
    return encodeNamespaceDescriptors({ eui64, nguid, uuid, csi: CommandSetId.nvm });
  }
}

/** The ids of those namespaces that are above `nsid`, which may be 0. */
function namespaceList(namespaces: readonly Namespace[], nsid: number): Uint8Array | number {
  if (nsid >= NSID_LIMIT) return Outcome.invalidNamespace;
  return encodeNamespaceList(namespaces.map((namespace) => namespace.nsid).filter((id) => id > nsid));
}

/** A list with the only controller of the subsystem, if it belongs there and is not below `from` (NVMe base 2.0, 4.4.1). */
function controllerList(from: number, present: boolean): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  if (present && from <= CONTROLLER_ID) new Uint16Array(bytes.buffer).set([1, CONTROLLER_ID]);
  return bytes;
}

const COMMON: IdentifyNamespaceInput = {
  fpi: FORMAT_PROGRESS,
  lbafs: LBA_FORMATS.map((each) => lbaFormat(each, true)),
};

function namespaceData(namespace: Namespace): Uint8Array {
  const { backend, blocks, blockSize, nguid, eui64, size } = namespace;
  return encodeIdentifyNamespace({
    nsze: blocks,
    ncap: blocks,
    nuse: blocks,
    nguid,
    eui64,
    nvmcap: BigInt(size),
    mssrl: COPY_RANGE_LIMIT / blockSize,
    mcl: COPY_BYTES / blockSize,
    msrc: COPY_RANGES - 1,
    ...(backend.deallocation && deallocationData(backend.deallocation, blockSize)),
    flbas: LBA_FORMATS.indexOf(blockSize),
    fpi: FORMAT_PROGRESS | (namespace.formatting ?? 0),
    lbafs: LBA_FORMATS.map((each) => lbaFormat(each, namespace.offers(each))),
  });
}

/** An LBA format without metadata. One that is not available has no block size. */
function lbaFormat(blockSize: number, available: boolean): LbaFormat {
  return { ms: 0, ds: available ? Math.log2(blockSize) : 0, rp: 0 };
}

/** What is told of blocks that are deallocated. */
function deallocationData(
  { unit, readsZero }: Deallocation,
  blockSize: number,
): Partial<IdentifyNamespaceInput> {
  const granularity = Math.min(Math.max(1, unit / blockSize), 0x1_0000) - 1;
  return {
    nsfeat: NamespaceFeatures.optimalPerformance,
    npdg: granularity,
    npda: granularity,
    dlfeat: DEALLOCATE_BY_WRITE_ZEROES | (readsZero ? READS_ZERO : 0),
  };
}

/** What does not depend on the command set: that the namespace is ready (NVMe base 2.0, 5.17.2.8). */
function independentData(): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  bytes[NSTAT] = NAMESPACE_READY;
  return bytes;
}

function controllerData(options: ResolvedOptions, namespaces: NamespaceSet, shadows: boolean): Uint8Array {
  return encodeIdentifyController({
    vid: PciIds.vendor,
    ssvid: PciIds.subsystemVendor,
    sn: options.serial,
    mn: options.model,
    fr: FIRMWARE_REVISION,
    mdts: Math.log2(options.maxTransfer / 4096),
    cntlid: CONTROLLER_ID,
    ver: NVME_VERSION,
    cntrltype: 1,
    rab: 5,
    oacs:
      OptionalAdminCommands.formatNvm |
      (namespaces.manageable ? OptionalAdminCommands.namespaceManagement : 0) |
      (shadows ? OptionalAdminCommands.doorbellBufferConfig : 0),
    acl: 3,
    oaes: OptionalEvents.namespaceAttributes,
    aerl: ASYNC_EVENT_LIMIT - 1,
    // One slot, which is read-only.
    frmw: 0x03,
    lpa: LogPageAttributes.commandEffects | LogPageAttributes.extendedData,
    elpe: ERROR_LOG_ENTRIES - 1,
    wctemp: WARNING_TEMPERATURE,
    cctemp: CRITICAL_TEMPERATURE,
    tnvmcap: BigInt(namespaces.capacity),
    unvmcap: BigInt(namespaces.unallocated),
    kas: KEEP_ALIVE_UNIT / 100,
    sqes: 0x66,
    cqes: 0x44,
    nn: namespaces.limit,
    mnan: namespaces.limit,
    oncs: OFFERED_COMMANDS,
    fuses: FUSED_COMPARE_AND_WRITE,
    ocfs: COPY_FORMAT_0,
    // Flush takes the broadcast namespace id: bits 2:1 are 3.
    vwc: options.volatileCache ? 0x07 : 0x06,
    // Data blocks and segments at any address; no bit buckets, and no list that is longer than the data.
    sgls: 1,
    subnqn: options.nqn,
    psds: [{ max_power: 2500 }],
  });
}
