// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { CommandError } from '../../lib/server';
import { useServer } from './fixture';
import { BAR_SIZE, F_NO_REPLY, access, gate, join, message, turns, u16, u32, u64 } from './support';

const { EINVAL, EIO, ENXIO } = constants.errno;
const t = useServer();

describe('region accesses', () => {
  test('read and write', async () => {
    const written = await t.raw.ask(message(10, join(access(0, 0x10, 4), u32(0xcafe))));
    expect(written.payload).toEqual(access(0, 0x10, 4));
    const read = await t.raw.ask(message(9, access(0, 0x10, 4)));
    expect(read.payload).toEqual(join(access(0, 0x10, 4), u32(0xcafe)));
    expect((await t.raw.ask(message(9, access(7, 0, 4)))).payload).toEqual(
      join(access(7, 0, 4), u16(0x1234, 0x5678)),
    );
    expect((await t.raw.ask(message(9, access(7, 0, 4096)))).payload.length).toBe(16 + 4096);
    expect((await t.raw.ask(message(9, access(0, BAR_SIZE, 0)))).payload).toEqual(access(0, BAR_SIZE, 0));
    expect(await t.raw.errnoOf(10, join(access(7, 4, 2), u16(0x0006)))).toBe(0);
    expect(t.model.log).toEqual(['attach', 'command']);
  });

  test.each([
    ['read beyond the end', 9, access(0, BAR_SIZE - 2, 4)],
    ['read far beyond the end', 9, access(0, 0xffff_ffff_ffff_fff0n, 4)],
    ['read of more than can be transferred', 9, access(0, 0, 0xffff_ffff)],
    ['read of an absent region', 9, access(5, 0, 4)],
    ['read of a region that does not exist', 9, access(0x7fff_ffff, 0, 4)],
    ['read of a region that cannot be read', 9, access(3, 0, 4)],
    ['read cut short', 9, access(0, 0, 4).subarray(0, 15)],
    ['write of a region that cannot be written', 10, join(access(2, 0, 4), u32(1))],
    ['write beyond the end', 10, join(access(0, BAR_SIZE, 4), u32(1))],
    ['write with too little data', 10, join(access(0, 0, 8), u32(1))],
    ['write with too much data', 10, join(access(0, 0, 2), u32(1))],
    [
      'several writes, one beyond the end',
      15,
      join(u64(2), access(0, 0, 4), u64(7), access(0, BAR_SIZE, 1), u64(7)),
    ],
    ['several writes, fewer than said', 15, join(u64(2), access(0, 0, 4), u64(7))],
    ['several writes, far too many', 15, u64(0xffff_ffff_ffff_ffffn)],
  ])('%s is EINVAL', async (_name, command, payload) => {
    expect(await t.raw.errnoOf(command, payload)).toBe(EINVAL);
    expect(t.model.bar0.every((byte) => byte === 0)).toBe(true);
    expect(t.errors).toEqual([]);
  });

  test('posted writes have no reply, also when they fail', async () => {
    t.raw.send(message(10, join(access(0, 8, 4), u32(5)), 5, F_NO_REPLY));
    t.raw.send(message(10, join(access(0, BAR_SIZE, 4), u32(5)), 6, F_NO_REPLY));
    t.raw.send(message(10, join(access(1, 8, 4), u32(5)), 6, F_NO_REPLY));
    expect((await t.raw.ask(message(9, access(0, 8, 4), 7))).id).toBe(7);
    expect(t.model.log).toContain('posted 8');
  });

  test('several writes in one message', async () => {
    const payload = join(u64(2), access(0, 0, 4), u64(0x11223344), access(0, 8, 8), u64(0x55));
    expect((await t.raw.ask(message(15, payload))).payload).toEqual(u64(2));
    expect(t.model.bar0.subarray(0, 9)).toEqual(Uint8Array.of(0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0, 0x55));
    // The second fails: the reply tells that one was done.
    t.model.failure = new CommandError(ENXIO, 'test');
    const partly = join(u64(2), access(1, 0, 4), u64(1), access(1, 8, 4), u64(1));
    expect((await t.raw.ask(message(15, partly))).payload).toEqual(u64(1));
    t.model.failure = new CommandError(ENXIO, 'test');
    expect(await t.raw.errnoOf(15, join(u64(1), access(1, 8, 4), u64(1)))).toBe(ENXIO);
  });

  test('errors of the model: its errno, or EIO and a report', async () => {
    t.model.failure = new CommandError(ENXIO, 'not now');
    expect(await t.raw.errnoOf(9, access(1, 0, 4))).toBe(ENXIO);
    expect(t.errors).toEqual([]);
    for (const [command, payload] of [
      [9, access(1, 0, 4)],
      [10, join(access(1, 8, 4), u32(1))],
      [13, undefined],
    ] as const) {
      const failure = new TypeError('a defect of the model');
      t.model.failure = failure;
      expect(await t.raw.errnoOf(command, payload)).toBe(EIO);
      expect(t.errors.splice(0)).toEqual([{ error: failure, client: t.model.client }]);
    }
  });

  test('commands are served in their order while one takes long', async () => {
    const { opened, open } = gate();
    t.model.gate = opened;
    t.raw.send(message(13, undefined, 1));
    t.raw.send(message(9, access(0, 0, 4), 2));
    await turns();
    expect(t.model.log).toEqual(['attach', 'reset']);
    expect(t.raw.socket.receive(new Uint8Array(1), 0, 1)).toBe(0);
    open();
    expect((await t.raw.receive()).id).toBe(1);
    expect((await t.raw.receive()).id).toBe(2);
  });
});
