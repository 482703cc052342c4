// SPDX-License-Identifier: MIT
import { once } from 'node:events';
import { PassThrough, Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type VfioUserDevice } from '../../lib/client';
import { CommandError, Errno, type ServeOptions } from '../../lib/server';
import { MigratingModel, pattern } from '../server/migration-model';
import {
  bare,
  failure,
  fakeDevice,
  hex,
  join,
  openFds,
  servedDevice,
  toHex,
  turns,
  u32,
  u64,
  warmUp,
} from './support';

const DEVICE_FEATURE = 16;
const MIG_DATA_READ = 17;
const MIG_DATA_WRITE = 18;

beforeAll(warmUp);

let fdsBefore = 0;
beforeEach(() => {
  fdsBefore = openFds();
});
afterEach(() => {
  expect(openFds()).toBeLessThanOrEqual(fdsBefore);
});

/** A device behind our own server, which keeps what its model throws to itself. */
const served = (model: MigratingModel, options: ServeOptions = {}): Promise<VfioUserDevice> =>
  servedDevice(model, {}, { onError: () => undefined, ...options });

/** Resolves when a stream is done with its device. */
function closing(stream: Readable | Writable): Promise<void> {
  return new Promise((resolve) => stream.once('close', resolve));
}

const SMALL = { capabilities: { maxDataXferSize: 5000 } };

test.each([0, 1, 999, 64 << 10, (64 << 10) + 1, (2 << 20) + 4321])(
  'a device with %i bytes moves',
  async (size) => {
    const [from, to] = [new MigratingModel(pattern(size)), new MigratingModel(pattern(10))];
    const [source, target] = [await served(from), await served(to)];
    const [read, write] = [source.migration.createReadStream(), target.migration.createWriteStream()];
    await pipeline(read, write);
    expect(Buffer.compare(to.data, pattern(size))).toBe(0);
    expect([read.bytesRead, write.bytesWritten]).toEqual([size, size]);
    expect(await source.migration.state()).toBe('stop');
    expect(await target.migration.state()).toBe('running');
    expect(from.states).toEqual(
      ['running > stop', 'stop > stopCopy', 'stopCopy > stop'].flatMap((s, i) =>
        i === 2 ? ['end', s] : [s],
      ),
    );
    expect(to.states).toEqual(['running > stop', 'stop > resuming', 'resuming > stop', 'stop > running']);
  },
);

test('messages obey max_data_xfer_size', async () => {
  const to = new MigratingModel();
  const source = await served(new MigratingModel(pattern(12_345)), SMALL);
  const target = await served(to, SMALL);
  await pipeline(
    source.migration.createReadStream({ highWaterMark: 1 << 20 }),
    target.migration.createWriteStream(),
  );
  expect(Buffer.compare(to.data, pattern(12_345))).toBe(0);
});

test('PRE_COPY comes first, in the same stream', async () => {
  const [from, to] = [new MigratingModel(pattern(3000)), new MigratingModel()];
  from.early = pattern(70_000);
  const [source, target] = [await served(from), await served(to)];
  await pipeline(
    source.migration.createReadStream({ preCopy: true }),
    target.migration.createWriteStream({ resume: false }),
  );
  expect(Buffer.compare(to.data, Buffer.concat([pattern(70_000), pattern(3000)]))).toBe(0);
  expect(from.states).toEqual(['running > preCopy', 'end', 'preCopy > stopCopy', 'end', 'stopCopy > stop']);
  expect(await target.migration.state()).toBe('stop');
});

test('a PRE_COPY that would not end is ended, between two chunks of the device', async () => {
  const [from, to] = [new MigratingModel(pattern(100)), new MigratingModel()];
  from.early = pattern(10_000_000);
  const [source, target] = [await served(from), await served(to)];
  const read = source.migration.createReadStream({ preCopy: true, highWaterMark: 1500 });
  read.once('data', () => {
    read.stopPreCopy();
  });
  await pipeline(read, new PassThrough(), target.migration.createWriteStream());
  const early = to.data.length - 100;
  expect(early).toBeLessThan(100_000);
  expect(early % 1000).toBe(0);
  expect(Buffer.compare(to.data, Buffer.concat([from.early.subarray(0, early), pattern(100)]))).toBe(0);
});

test('the producer waits for a slow consumer', async () => {
  const from = new MigratingModel(pattern(1 << 20));
  const source = await served(from);
  const read = source.migration.createReadStream({ highWaterMark: 4096 });
  await once(read, 'readable');
  await turns(100);
  expect(read.bytesRead).toBeLessThanOrEqual(3 * 4096);
  read.destroy();
  await once(read, 'close');
});

test('an aborted pipeline leaves the source running, and the target reset', async () => {
  const [from, to] = [new MigratingModel(pattern(1 << 20)), new MigratingModel(pattern(10))];
  const [source, target] = [await served(from), await served(to)];
  const abort = new AbortController();
  const read = source.migration.createReadStream({ highWaterMark: 1024 });
  const write = target.migration.createWriteStream();
  const closed = Promise.all([closing(read), closing(write)]);
  read.once('data', () => {
    abort.abort();
  });
  await expect(pipeline(read, write, { signal: abort.signal })).rejects.toMatchObject({ name: 'AbortError' });
  await closed;
  expect(await source.migration.state()).toBe('running');
  expect(from.states.slice(-3)).toEqual(['stopCopy > stop', 'end', 'stop > running']);
  expect(await target.migration.state()).toBe('running');
  expect(to.log).toContain('reset');
  expect(Buffer.compare(to.data, pattern(10))).toBe(0);
});

test('a source that was stopped before is stopped after an abort', async () => {
  const source = await served(new MigratingModel(pattern(1 << 20)));
  await source.migration.setState('stop');
  const read = source.migration.createReadStream();
  await once(read, 'readable');
  read.destroy();
  await once(read, 'close');
  expect(await source.migration.state()).toBe('stop');
});

test('a source that fails to save runs again', async () => {
  const [from, to] = [new MigratingModel(pattern(10_000)), new MigratingModel()];
  const [source, target] = [await served(from), await served(to)];
  from.failures.save = new Error('disk on fire');
  const [read, write] = [source.migration.createReadStream(), target.migration.createWriteStream()];
  const closed = Promise.all([closing(read), closing(write)]);
  await expect(pipeline(read, write)).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_REMOTE',
    errno: Errno.EIO,
  });
  await closed;
  expect(await source.migration.state()).toBe('running');
  expect(await target.migration.state()).toBe('running');
});

test.each(['write', 'finish'] as const)('a target that fails to %s is reset', async (what) => {
  const [from, to] = [new MigratingModel(pattern(10_000)), new MigratingModel()];
  const [source, target] = [await served(from), await served(to)];
  to.failures[what] = new Error('not mine');
  const [read, write] = [source.migration.createReadStream(), target.migration.createWriteStream()];
  const closed = Promise.all([closing(read), closing(write)]);
  await expect(pipeline(read, write)).rejects.toMatchObject({ errno: Errno.EIO });
  await closed;
  expect(await target.migration.state()).toBe('running');
  expect(to.log).toContain('reset');
  await source.migration.setState('running');
  expect(await source.migration.state()).toBe('running');
});

test('transitions that are not legal are refused before anything is sent', async () => {
  const device = await served(new MigratingModel());
  for (const state of ['error', 'runningP2p', 'preCopyP2p'] as const)
    await expect(device.migration.setState(state)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
  await device.migration.setState('stopCopy');
  await expect(device.migration.setState('preCopy')).rejects.toMatchObject(
    failure('ERR_VFIO_USER_MIGRATION', 'is in state stopCopy, from which no transition leads to preCopy'),
  );
  const read = device.migration.createReadStream();
  await expect(read.toArray()).rejects.toMatchObject(
    failure('ERR_VFIO_USER_MIGRATION', 'a transfer begins in running or stop'),
  );
  expect(await device.migration.state()).toBe('stopCopy');
});

test('a device without PRE_COPY', async () => {
  const device = await served(new MigratingModel(pattern(1), false));
  expect(await device.migration.supported()).toEqual({ stopCopy: true, preCopy: false, p2p: false });
  await expect(device.migration.setState('preCopy')).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_MIGRATION',
  });
  await expect(device.migration.createReadStream({ preCopy: true }).toArray()).rejects.toMatchObject(
    failure('ERR_VFIO_USER_UNSUPPORTED', 'does not offer PRE_COPY'),
  );
});

test('a transition that the device refuses, or fails at', async () => {
  const model = new MigratingModel();
  const device = await served(model);
  model.failures.stop = new CommandError(Errno.EBUSY, 'not now');
  await expect(device.migration.setState('stop')).rejects.toMatchObject({
    ...failure(
      'ERR_VFIO_USER_MIGRATION',
      'failed to go from running to stop (EBUSY); it is in state running now',
    ),
    errno: Errno.EBUSY,
  });
  model.failures.stop = new Error('bug');
  await expect(device.migration.setState('stop')).rejects.toMatchObject(
    failure('ERR_VFIO_USER_MIGRATION', 'it is in state error now, out of which only a reset leads'),
  );
  await expect(device.migration.setState('running')).rejects.toMatchObject(
    failure('ERR_VFIO_USER_MIGRATION', 'reset the device'),
  );
  await device.reset();
  expect(await device.migration.state()).toBe('running');
});

// vfio-user, VFIO_USER_DEVICE_FEATURE: u32 argsz, u32 flags (GET bit 16, SET 17, PROBE 18), data.
const RUNNING = join(u32(16, 0x10002), hex('02000000 00000000'));
const reply = (flags: number, data: Uint8Array): Uint8Array => join(u32(8 + data.length, flags), data);

test('what is sent', async () => {
  let state = 2;
  const { device, server } = await fakeDevice({
    [DEVICE_FEATURE]: ({ payload }) => {
      const flags = Buffer.from(payload).readUInt32LE(4);
      if (flags === 0x10001) return reply(flags, u64(1));
      if (flags === 0x20002) state = payload[8] ?? 0;
      return reply(flags, u32(state, 0));
    },
    // 3 of the 65536 bytes that were asked for, padded as libvfio-user does.
    [MIG_DATA_READ]: join(u32(11, 3), hex('aabbcc'), new Uint8Array(65533)),
  });
  expect(Buffer.concat(await device.migration.createReadStream().toArray()).toString('hex')).toBe('aabbcc');
  expect(server.payloads(DEVICE_FEATURE)).toEqual(
    [
      '08100000 01000100',
      '08100000 02000100',
      '08100000 02000100',
      '10000000 02000200 03000000 00000000',
      '08100000 02000100',
      '10000000 02000200 01000000 00000000',
    ].map(bare),
  );
  expect(server.payloads(MIG_DATA_READ)).toEqual([bare('08000100 00000100')]);
  await pipeline(Readable.from([hex('010203')]), device.migration.createWriteStream());
  expect(server.payloads(MIG_DATA_WRITE)).toEqual([bare('0b000000 03000000 010203')]);
});

test('features', async () => {
  const { device, server } = await fakeDevice({
    [DEVICE_FEATURE]: ({ payload }) =>
      payload[4] === 9 ? Errno.ENOTTY : payload[4] === 10 ? Errno.EPERM : payload,
  });
  expect(toHex(await device.feature.get(3, hex('11'), 1))).toBe('11');
  expect(toHex(await device.feature.set(4, hex('22 33')))).toBe('2233');
  expect(await device.feature.probe(5, { get: true, set: true })).toBe(true);
  expect(await device.feature.probe(9)).toBe(false);
  await expect(device.feature.probe(10)).rejects.toMatchObject({ errno: Errno.EPERM });
  expect(server.payloads(DEVICE_FEATURE).slice(0, 3)).toEqual(
    ['09000000 03000100 11', '0a000000 04000200 2233', '08000000 05000700'].map(bare),
  );
});

test.each<[string, Uint8Array, string]>([
  ['a state that does not exist', reply(0x10002, u32(8, 0)), 'device state 8 does not exist'],
  ['another feature', reply(0x10001, u32(2, 0)), 'feature is 1, 2 was asked for'],
  ['too few bytes', reply(0x10002, u32(2)), '4 bytes, at least 8'],
  ['no payload', new Uint8Array(0), '0 bytes, at least 8'],
  ['more than there is', join(u32(0xffff_ffff, 0x10002), u32(2, 0)), 'need 4294967295 bytes'],
  ['more than was asked for', reply(0x10002, new Uint8Array(5000)), 'at most 4104 were asked for'],
])('a hostile reply to a state: %s', async (_, answer, text) => {
  const { device } = await fakeDevice({ [DEVICE_FEATURE]: answer });
  await expect(device.migration.state()).rejects.toMatchObject(failure('ERR_VFIO_USER_PROTOCOL', text));
});

test.each<[string, Uint8Array]>([
  ['a size above what was asked for', join(u32(16, 0xffff_ffff), u64(0))],
  ['a size above what came', join(u32(16, 9), u64(0))],
  ['more bytes than were asked for', join(u32(8, 0), new Uint8Array(65537))],
  ['no payload', new Uint8Array(0)],
])('hostile migration data: %s', async (_, answer) => {
  const { device } = await fakeDevice({
    [DEVICE_FEATURE]: ({ payload }) => {
      const flags = Buffer.from(payload).readUInt32LE(4);
      return flags === 0x10001 ? reply(flags, u64(1)) : flags === 0x20002 ? payload : RUNNING;
    },
    [MIG_DATA_READ]: answer,
  });
  await expect(device.migration.createReadStream().toArray()).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_PROTOCOL',
  });
});

test('a device that answers with another state than was set', async () => {
  const { device } = await fakeDevice({
    [DEVICE_FEATURE]: ({ payload }) => reply(Buffer.from(payload).readUInt32LE(4), u32(2, 0)),
  });
  await expect(device.migration.setState('stop')).rejects.toMatchObject(
    failure('ERR_VFIO_USER_PROTOCOL', 'answered the transition to stop with state running'),
  );
});

test('a device that cannot migrate', async () => {
  const { device } = await fakeDevice({ [DEVICE_FEATURE]: Errno.EINVAL });
  expect(await device.migration.supported()).toEqual({ stopCopy: false, preCopy: false, p2p: false });
  expect(await device.dirtyLog.supported()).toBe(false);
  const nothing = new Writable({
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  await expect(pipeline(device.migration.createReadStream(), nothing)).rejects.toMatchObject(
    failure('ERR_VFIO_USER_UNSUPPORTED', 'does not offer migration'),
  );
});

test('a connection that ends in the middle', async () => {
  const { device } = await fakeDevice({
    [DEVICE_FEATURE]: ({ payload }) => {
      const flags = Buffer.from(payload).readUInt32LE(4);
      return flags === 0x10001 ? reply(flags, u64(1)) : flags === 0x20002 ? payload : RUNNING;
    },
    [MIG_DATA_READ]: 'close',
    [MIG_DATA_WRITE]: 'close',
  });
  await expect(device.migration.createReadStream().toArray()).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_DISCONNECTED',
  });
  await expect(
    pipeline(Readable.from([hex('01')]), device.migration.createWriteStream()),
  ).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_DISCONNECTED',
  });
});
