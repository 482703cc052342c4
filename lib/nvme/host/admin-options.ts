// SPDX-License-Identifier: MIT
/** What the methods of `NvmeAdmin` are told. */
import type { AdminWait } from './admin-queue';

/** What {@link NvmeAdmin.identify} asks about. */
export interface IdentifyOptions extends AdminWait {
  /** NSID: a namespace, or the one after which a list begins. Default 0. */
  readonly nsid?: number;
  /** CNTID: a controller, 0 to 65535. Default 0. */
  readonly controllerId?: number;
  /** CSI: a value of `CommandSetId`. Default 0, the NVM command set. */
  readonly csi?: number;
  /** CNS Specific Identifier, 0 to 65535. Default 0. */
  readonly cnsSpecific?: number;
}

/** What {@link NvmeAdmin.getLogPage} asks about. */
export interface LogPageOptions extends AdminWait {
  /** NSID. Default 0, the controller. */
  readonly nsid?: number;
  /** First byte of the page to read, a multiple of 4. Default 0. */
  readonly offset?: number;
  /** LSP: log specific parameter, 0 to 127. Default 0. */
  readonly specific?: number;
  /** LSI: log specific identifier, such as an endurance group, 0 to 65535. Default 0. */
  readonly specificId?: number;
  /** CSI: a value of `CommandSetId`. Default 0, the NVM command set. */
  readonly csi?: number;
  /** RAE: does not clear the asynchronous event that announced the page. Default false. */
  readonly retainEvent?: boolean;
}

/** Which value of a feature {@link NvmeAdmin.getFeature} reads. */
export interface GetFeatureOptions<Argument = number> extends AdminWait {
  /** SEL: the value in use (default), the one after a reset, or the one that is saved. */
  readonly select?: 'current' | 'default' | 'saved';
  /** NSID, for features of which each namespace has a value. Default 0. */
  readonly nsid?: number;
  /** CDW11: the sensor, the vector or the like, for features that have several values. */
  readonly argument?: Argument;
}

/** How {@link NvmeAdmin.setFeature} sets a feature. */
export interface SetFeatureOptions extends AdminWait {
  /** SV: the value survives resets and power cycles. Default false. */
  readonly save?: boolean;
  /** NSID, for features of which each namespace has a value. Default 0. */
  readonly nsid?: number;
}

/** How {@link NvmeAdmin.format} formats. */
export interface FormatOptions extends AdminWait {
  /** Index of the LBA format in `lbafs` of Identify Namespace, 0 to 63. Default 0. */
  readonly format?: number;
  /** SES: whether the data is erased (`userData`), or its key (`cryptographic`), so that nobody can get it back. Default `none`. */
  readonly secureErase?: 'none' | 'userData' | 'cryptographic';
}

/** What {@link NvmeAdmin.createNamespace} makes. */
export interface CreateNamespaceOptions extends AdminWait {
  /** NSZE: size in blocks, at least 1. */
  readonly blocks: number;
  /** NCAP: blocks that may be allocated, with thin provisioning. Default: all. */
  readonly capacity?: number;
  /** Index of the LBA format in `lbafs` of Identify Namespace (of FFFFFFFFh), 0 to 63. Default 0. */
  readonly format?: number;
  /** NMIC, bit 0: several controllers may have it. Default false. */
  readonly shared?: boolean;
}
