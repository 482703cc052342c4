// SPDX-License-Identifier: MIT
/** The ioctls of VFIO without VFIO: what is checked before the kernel is asked. Guests show what they do. */
import { addon } from '../../lib/native/addon';
import {
  Iommufd,
  Mapping,
  VfioContainer,
  VfioDeviceFile,
  VfioGroup,
  closeFd,
  createSharedMemory,
} from '../../lib/native';
import { coded, errno } from '../support/errors';

const ENOTTY = -25;
const EINVAL = -22;
const size = 4096;
const fd = createSharedMemory(size);
afterAll(() => {
  closeFd(fd);
});

test('a descriptor of something else is told', () => {
  const { vfio } = addon();
  expect(vfio.apiVersion(fd)).toBe(ENOTTY);
  expect(vfio.groupStatus(fd)).toBe(ENOTTY);
  expect(vfio.allocateSpace(fd)).toBe(ENOTTY);
  expect(vfio.setIrqs(fd, 2, 0x24, 0, 1, Int32Array.of(-1))).toBe(ENOTTY);
});

test('a reset answers as a promise', async () => {
  const { vfio } = addon();
  expect(await vfio.reset(fd)).toBe(ENOTTY);
  expect(await vfio.hotReset(fd, new Int32Array(0))).toBe(ENOTTY);
  expect(await vfio.reset(0x7fffffff)).toBe(-9);
  expect(vfio.hotReset(fd, new Int32Array(257))).toBe(EINVAL);
});

test('an answer has room for its fixed part, or is not asked for', () => {
  const { vfio } = addon();
  expect(vfio.deviceInfo(fd, new Uint8Array(15))).toBe(EINVAL);
  expect(vfio.regionInfo(fd, 0, new Uint8Array(31))).toBe(EINVAL);
  expect(vfio.irqInfo(fd, 0, new Uint8Array(15))).toBe(EINVAL);
  expect(vfio.iommuInfo(fd, new Uint8Array(23))).toBe(EINVAL);
  expect(vfio.hotResetInfo(fd, new Uint8Array(11))).toBe(EINVAL);
  expect(vfio.deviceFeature(fd, new Uint8Array(7))).toBe(EINVAL);
  expect(vfio.deviceInfo(fd, new Uint8Array((1 << 20) + 1))).toBe(EINVAL);
});

test('memory that is no mapping is never given to a device', () => {
  const { vfio } = addon();
  expect(vfio.mapDma(fd, new ArrayBuffer(size), 0, 0n, 3)).toBe(EINVAL);
  expect(vfio.mapSpace(fd, 1, new ArrayBuffer(size), 0x7fffffff, 0n, 3)).toBe(EINVAL);
  const mapping = Mapping.map(fd, 0, size);
  const { buffer } = mapping;
  mapping.close();
  expect(vfio.mapDma(fd, buffer, 0, 0n, 3)).toBe(EINVAL);
  expect(() => vfio.mapDma(fd, new ArrayBuffer(size), 0, -1n, 3)).toThrow();
  expect(() => vfio.mapDma(fd, new ArrayBuffer(size), 0, 1n << 64n, 3)).toThrow();
  expect(() => vfio.mapDma(fd, new ArrayBuffer(size), 0, 0n, 4)).toThrow();
});

test('as many eventfds as there are vectors', () => {
  const { vfio } = addon();
  expect(() => vfio.setIrqs(fd, 2, 0x24, 0, 2, Int32Array.of(-1))).toThrow();
  expect(() => vfio.setIrqs(fd, 2, 0x24, 0, 2049, new Int32Array(2049))).toThrow();
});

test('nodes that are missing, or something else', () => {
  for (const Node of [VfioContainer, VfioGroup, Iommufd])
    expect(() => Node.open('/no/such/node')).toThrow(errno('ENOENT'));
  using container = VfioContainer.open('/dev/null');
  expect(() => container.apiVersion).toThrow(errno('ENOTTY'));
  using file = VfioDeviceFile.open('/dev/null', 'nothing');
  expect(() => file.info()).toThrow('VFIO_DEVICE_GET_INFO of nothing: ioctl failed with ENOTTY');
  file.close();
  file.close();
  expect(file.closed).toBe(true);
  expect(() => file.info()).toThrow(coded('ERR_VFIO_USER_CLOSED'));
});
