// SPDX-License-Identifier: MIT
import { Interrupted, exitCodeOf } from '../../lib/cli/failure';
import { UsageError } from '../../lib/cli/option-spec';
import { VfioUserError, invalidArgument, outOfRange, type VfioUserErrorCode } from '../../lib/errors';

test.each<[VfioUserErrorCode, number]>([
  ['ERR_VFIO_USER_ADDON', 1],
  ['ERR_VFIO_USER_SYSTEM', 1],
  ['ERR_VFIO_USER_CONNECT', 3],
  ['ERR_VFIO_USER_BUSY', 3],
  ['ERR_VFIO_USER_TIMEOUT', 3],
  ['ERR_VFIO_USER_DISCONNECTED', 3],
  ['ERR_VFIO_USER_CLOSED', 3],
  ['ERR_VFIO_USER_REMOTE', 1],
  ['ERR_VFIO_USER_PROTOCOL', 3],
  ['ERR_VFIO_USER_VERSION', 3],
  ['ERR_VFIO_USER_UNSUPPORTED', 1],
  ['ERR_VFIO_USER_DMA', 1],
  ['ERR_VFIO_USER_MIGRATION', 1],
  ['ERR_VFIO_USER_MAPPING_LOST', 1],
  ['ERR_VFIO_USER_PCI', 1],
  ['ERR_VFIO_USER_NVME_CONTROLLER', 1],
  ['ERR_VFIO_USER_NVME_STATUS', 1],
  ['ERR_VFIO_USER_VERIFY', 1],
])('%s ends with status %i', (code, status) => {
  expect(exitCodeOf(new VfioUserError(code, 'text'))).toBe(status);
});

test.each([
  [new UsageError('text'), 2],
  [outOfRange('text'), 2],
  [invalidArgument('text'), 2],
  [new Interrupted('SIGINT', 2), 130],
  [new Interrupted('SIGTERM', 15), 143],
  [new Error('text'), 1],
  ['text', 1],
  [null, 1],
])('%s ends with status %i', (error, status) => {
  expect(exitCodeOf(error)).toBe(status);
});
