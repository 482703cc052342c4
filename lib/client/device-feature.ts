// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import {
  Command,
  Feature,
  decodeDeviceFeatureReply,
  encodeDeviceFeatureRequest,
  type DeviceFeatureReply,
  type DeviceFeature as FeatureMessage,
} from '../protocol';
import { Errno } from '../transport';
import type { Link } from './link';

/** Room for the data of a feature whose size is not known, in bytes. */
const DEFAULT_ROOM = 4096;
/** What servers answer when they do not have a feature; some name no errno at all. */
const UNSUPPORTED: readonly (number | undefined)[] = [
  0,
  Errno.EINVAL,
  Errno.ENOTSUP,
  Errno.ENOTTY,
  Errno.ENOSYS,
];

/** Gets, sets and probes the features of a device (vfio-user, VFIO_USER_DEVICE_FEATURE). Features are 16-bit indexes. */
export class DeviceFeatures {
  readonly #link: Link;
  readonly #timeout: number;

  /** @param timeout milliseconds for a change: a device may have to finish its I/O first. @internal */
  constructor(link: Link, timeout: number) {
    this.#link = link;
    this.#timeout = timeout;
  }

  /**
   * Gets the data of a feature.
   *
   * @param data what the feature needs to know, if anything
   * @param room most bytes of data that are wanted; default 4096
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the device does not have the feature, or refuses
   */
  async get(feature: number, data?: Uint8Array, room = DEFAULT_ROOM): Promise<Uint8Array> {
    const request = data === undefined ? { feature, get: true } : { feature, get: true, data };
    const reply = await this.#request(request, room);
    if (!reply.complete) {
      throw new VfioUserError(
        'ERR_VFIO_USER_PROTOCOL',
        `${this.#link.name}: the data of feature ${feature} need ${reply.argsz} bytes; ${room} of data were offered`,
        { command: 'DEVICE_FEATURE' },
      );
    }
    return reply.data;
  }

  /**
   * Sets the data of a feature.
   *
   * @returns the data as the device took them, usually those that were given
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the device does not have the feature, or refuses
   */
  async set(feature: number, data: Uint8Array): Promise<Uint8Array> {
    return (await this.#request({ feature, set: true, data }, data.byteLength)).data;
  }

  /** Whether the device has a feature, and can get or set it when those are asked for. */
  async probe(
    feature: number,
    methods: { readonly get?: boolean; readonly set?: boolean } = {},
  ): Promise<boolean> {
    try {
      await this.#request({ feature, ...methods, probe: true }, 0);
      return true;
    } catch (error) {
      if (isUnsupported(error)) return false;
      throw error;
    }
  }

  async #request(message: FeatureMessage, room: number): Promise<DeviceFeatureReply> {
    const payload = encodeDeviceFeatureRequest(message, room);
    // A report clears what it tells, and there is no log on another connection.
    const acts = message.set === true || message.feature === Feature.dmaLoggingReport;
    const reply = await this.#link.request({
      command: Command.deviceFeature,
      payload,
      timeout: message.set === true ? this.#timeout : undefined,
      maxReply: Math.max(payload.byteLength, 8 + room),
      loss: acts && message.probe !== true ? 'fail' : undefined,
    });
    return decodeDeviceFeatureReply(reply.payload, message);
  }
}

/** Whether an error is a server's way to say that it does not have a feature. */
export function isUnsupported(error: unknown): boolean {
  return (
    error instanceof VfioUserError &&
    error.code === 'ERR_VFIO_USER_REMOTE' &&
    UNSUPPORTED.includes(error.errno)
  );
}
