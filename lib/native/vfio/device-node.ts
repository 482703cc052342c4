// SPDX-License-Identifier: MIT
import { VfioUserError, systemError } from '../../errors';
import { addon, checked } from '../addon';
import { closeFd } from '../fd';

/** An open device node of VFIO or of the iommufd. Owns its descriptor. */
export class DeviceNode {
  /** For messages. */
  readonly name: string;
  readonly #fd: number;
  #closed = false;

  /** @param fd taken over */
  protected constructor(name: string, fd: number) {
    this.name = name;
    this.#fd = fd;
  }

  /** @throws VfioUserError `ERR_VFIO_USER_CLOSED` */
  get fd(): number {
    this.assertOpen();
    return this.#fd;
  }

  /** @throws VfioUserError `ERR_VFIO_USER_CLOSED` */
  assertOpen(): void {
    if (this.#closed) throw new VfioUserError('ERR_VFIO_USER_CLOSED', `${this.name} is closed`);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Idempotent. Closing the last descriptor of a device may take a while: the kernel resets the device. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeFd(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** The result of an ioctl, or its error. */
  protected checked(result: number, request: string): number {
    if (result < 0) throw systemError('ioctl', -result, `${request} of ${this.name}`);
    return result;
  }
}

/** @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: ENOENT, EACCES, EBUSY, ENODEV */
export function openNode(path: string): number {
  return checked(addon().openDevice(path), 'open', `Opening ${path}`);
}
