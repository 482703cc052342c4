// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { closeFd, createSharedMemory } from '../../lib/native';
import { useServer } from './fixture';
import { RawClient, join, message, u16, u32 } from './support';

const { EINVAL } = constants.errno;
const t = useServer();

describe('VERSION', () => {
  const version = (major: number, minor: number, json: string): Uint8Array =>
    message(1, join(u16(major, minor), Buffer.from(json)));
  const negotiate = async (bytes: Uint8Array): Promise<string> => {
    t.raw.close();
    t.raw = await RawClient.connect(t.endpoint, false);
    const reply = await t.raw.ask(bytes);
    expect(reply.errno).toBe(0);
    expect([...reply.payload.subarray(0, 2)]).toEqual([0, 0]);
    return `${reply.payload[2]} ${Buffer.from(reply.payload.subarray(4)).toString()}`;
  };

  test('the lower minor version holds', async () => {
    expect(await negotiate(version(0, 9, ''))).toBe('1 ');
    expect(await negotiate(version(0, 0, ''))).toBe('0 ');
  });

  test('the reply is not longer than what the client sent; the most telling capability comes first', async () => {
    const long =
      '{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0';
    const reply = await negotiate(version(0, 0, long));
    expect(reply.length - 2).toBeLessThanOrEqual(long.length);
    expect(JSON.parse(reply.slice(2, -1))).toMatchObject({ capabilities: { max_msg_fds: 16 } });
    expect(await negotiate(version(0, 0, '{"capabilities":{}}\0'))).toBe('0 ');
    expect(await negotiate(version(0, 0, '{"capabilities":{"max_msg_fds":16}}\0'))).toBe(
      '0 {"capabilities":{"max_msg_fds":16}}\0',
    );
  });

  test('another major version, broken JSON and descriptors are refused', async () => {
    const fd = createSharedMemory(4096);
    for (const [bytes, fds] of [
      [version(1, 0, ''), []],
      [version(0, 0, '{"capabilities":'), []],
      [version(0, 0, '{"capabilities":{"max_msg_fds":-1}}'), []],
      [message(1, u16(0)), []],
    ] as const) {
      t.raw.close();
      t.raw = await RawClient.connect(t.endpoint, false);
      expect((await t.raw.ask(bytes, [...fds])).errno).toBe(EINVAL);
      await t.raw.end();
    }
    t.raw.close();
    t.raw = await RawClient.connect(t.endpoint, false);
    expect((await t.raw.ask(version(0, 0, ''), [fd])).errno).toBe(EINVAL);
    // At once, and not when the time for VERSION is over.
    await t.raw.end();
    expect(t.errors).toEqual([]);
    closeFd(fd);
  });

  test('comes first and once', async () => {
    expect(await t.raw.errnoOf(1, u16(0, 0))).toBe(EINVAL);
    expect(await t.raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
    t.raw.close();
    t.raw = await RawClient.connect(t.endpoint, false);
    expect(await t.raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(EINVAL);
    await t.raw.end();
    expect(t.model.log).toEqual(['attach', 'detach']);
  });
});
