// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../errors';
import { adminOpcodeName, decodeStatus, nvmOpcodeName, statusText } from '../spec';

/** A command completed with an error status (code `ERR_VFIO_USER_NVME_STATUS`). */
export class NvmeStatusError extends VfioUserError {
  /** Status code type, a value of `StatusCodeType`. */
  readonly sct: number;
  /** Status code, by type a value of `GenericStatus`, `CommandStatus`, `MediaStatus` or `PathStatus`. */
  readonly sc: number;
  /** True when the controller says that the same command would fail again. */
  readonly doNotRetry: boolean;
  /** Name of the NVMe command. */
  readonly operation: string;

  /**
   * @param field the 15-bit status field
   * @param detail what the command was about, such as `LBA 8, 16 blocks`; may be empty
   * @internal
   */
  constructor(opcode: number, admin: boolean, field: number, detail: string) {
    const status = decodeStatus(field);
    const operation = admin ? adminOpcodeName(opcode) : nvmOpcodeName(opcode);
    const what = detail === '' ? operation : `${operation} (${detail})`;
    super('ERR_VFIO_USER_NVME_STATUS', `${what} failed: ${statusText(status.sct, status.sc)}`);
    this.sct = status.sct;
    this.sc = status.sc;
    this.doNotRetry = status.doNotRetry;
    this.operation = operation;
  }

  /** True for errors of this class from any copy of the package. The base class has a test that takes all of its errors. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return VfioUserError[Symbol.hasInstance](value) && 'sct' in (value as object);
  }
}

/** Errors of a controller that is gone, or has stopped. */
const STOPPED: ReadonlySet<unknown> = new Set([
  'ERR_VFIO_USER_DISCONNECTED',
  'ERR_VFIO_USER_NVME_CONTROLLER',
]);

/** Whether the device has let go of a command's memory: it completed the command, or has stopped. After a time-out it may not have. */
export function isOver(error: unknown): boolean {
  return error instanceof NvmeStatusError || (error instanceof VfioUserError && STOPPED.has(error.code));
}
