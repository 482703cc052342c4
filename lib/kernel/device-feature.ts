// SPDX-License-Identifier: MIT
import { promised } from '../async';
import { VfioUserError } from '../errors';
import type { VfioDeviceFile } from '../native';
import { decodeDeviceFeatureReply, encodeDeviceFeatureRequest, type DeviceFeature } from '../protocol';

/** Room for the data of a feature whose size is not known, in bytes. */
const DEFAULT_ROOM = 4096;
/** Bytes of `struct vfio_device_feature` before its data. */
const HEAD = 8;
/** What the kernel answers when a device does not have a feature. */
const UNSUPPORTED: ReadonlySet<string | undefined> = new Set(['ENOTTY', 'EINVAL', 'EOPNOTSUPP', 'ENOTSUP']);

/** Gets, sets and probes the features of a device (`linux/vfio.h`, VFIO_DEVICE_FEATURE). Features are 16-bit indexes. */
export class KernelFeatures {
  readonly #file: VfioDeviceFile;

  /** @internal */
  constructor(file: VfioDeviceFile) {
    this.#file = file;
  }

  /**
   * Gets the data of a feature.
   *
   * @param data what the feature needs to know, if anything
   * @param room most bytes of data that are wanted; default 4096
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM when the device does not have the feature (ENOTTY), or refuses
   */
  get(feature: number, data: Uint8Array = new Uint8Array(0), room = DEFAULT_ROOM): Promise<Uint8Array> {
    return promised(() => this.#ask({ feature, get: true, data }, room));
  }

  /**
   * Sets the data of a feature.
   *
   * @returns the data as the kernel left them
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM when the device does not have the feature (ENOTTY), or refuses
   */
  set(feature: number, data: Uint8Array): Promise<Uint8Array> {
    return promised(() => this.#ask({ feature, set: true, data }, data.length));
  }

  /** Whether the device has a feature, and can get or set it when those are asked for. */
  probe(feature: number, methods: { readonly get?: boolean; readonly set?: boolean } = {}): Promise<boolean> {
    return promised(() => {
      try {
        this.#ask({ feature, ...methods, probe: true }, 0);
        return true;
      } catch (error) {
        if (isUnsupported(error)) return false;
        throw error;
      }
    });
  }

  /** The structure is that of vfio-user, whose codec writes and reads it. */
  #ask(message: DeviceFeature, room: number): Uint8Array {
    const bytes = new Uint8Array(HEAD + Math.max(room, message.data?.length ?? 0));
    bytes.set(encodeDeviceFeatureRequest(message));
    this.#file.feature(bytes);
    return decodeDeviceFeatureReply(bytes, message).data;
  }
}

/** Whether an error is the kernel's way to say that a device does not have a feature. */
export function isUnsupported(error: unknown): boolean {
  return error instanceof VfioUserError && UNSUPPORTED.has(error.errnoName);
}
