// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { closeFd, createSharedMemory } from '../../lib/native';
import { useServer } from './fixture';
import { openFds } from './support';

const { EINVAL, ENOTSUP } = constants.errno;
const t = useServer();

describe('other commands', () => {
  test('DEVICE_RESET', async () => {
    expect(await t.raw.errnoOf(13)).toBe(0);
    expect(t.model.log).toEqual(['attach', 'reset']);
  });

  test('what is not served', async () => {
    for (const command of [0, 11, 12, 14, 16, 17, 18, 19, 0xffff])
      expect(await t.raw.errnoOf(command, new Uint8Array(64))).toBe(ENOTSUP);
  });

  test('descriptors where none belong', async () => {
    const fd = createSharedMemory(4096);
    const open = openFds();
    for (const command of [3, 4, 5, 6, 7, 9, 10, 13, 15, 16])
      expect(await t.raw.errnoOf(command, new Uint8Array(64), [fd, fd])).toBe(EINVAL);
    expect(openFds()).toBe(open);
    closeFd(fd);
  });
});
