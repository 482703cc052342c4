// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { EventFd, closeFd, createSharedMemory } from '../../lib/native';
import { serve } from '../../lib/server';
import { useServer } from './fixture';
import { RawClient, VERSION, join, message, openFds, turns, u16, u32, u64, until } from './support';

const t = useServer({ versionTimeout: 100 });
// The clients of these tests are others than the one that negotiated.
beforeEach(async () => {
  t.raw.close();
  await until(() => t.server.client === null);
});

describe('clients that misbehave', () => {
  /** The server is well when the next client is served. */
  const isWell = async (): Promise<void> => {
    const raw = await RawClient.connect(t.endpoint);
    expect(await raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
    raw.close();
    await until(() => t.server.client === null);
  };

  test('a silent one is disconnected', async () => {
    const silent = await RawClient.connect(t.endpoint, false);
    await isWell();
    await silent.end();
    silent.close();
    expect(t.errors).toMatchObject([{ error: { code: 'ERR_VFIO_USER_TIMEOUT' } }]);
  });

  test('so is one that sends half a header, or a header without the rest', async () => {
    for (const length of [1, 15, 16, 19]) {
      const slow = await RawClient.connect(t.endpoint, false);
      slow.send(VERSION.subarray(0, length));
      await isWell();
      await slow.end();
      slow.close();
    }
  });

  test('one that negotiated may stay silent', async () => {
    const raw = await RawClient.connect(t.endpoint);
    // The time of a silent client of another server, which has come later, is over: so is that of this one.
    const options = { versionTimeout: 100, onError: () => undefined };
    await using other = await serve(`${t.endpoint}.other`, t.model, options);
    const silent = await RawClient.connect(other.path, false);
    await silent.end();
    silent.close();
    expect(await raw.errnoOf(13)).toBe(0);
    raw.close();
    expect(t.errors).toEqual([]);
  });

  test('one that leaves in the middle of a message, with descriptors', async () => {
    const event = EventFd.create();
    for (const length of [1, 16, 17, 47]) {
      const raw = await RawClient.connect(t.endpoint);
      const dmaMap = message(2, join(u32(32, 3), u64(0, 0, 0x1000)));
      raw.send(dmaMap.subarray(0, length), [event.fd, event.fd]);
      await turns();
      raw.close();
      await isWell();
    }
    event.close();
    expect(t.errors).toEqual([]);
  });

  test.each([
    ['a size below the header', join(u16(1, 4), u32(15, 0, 0))],
    ['a size beyond the limit', join(u16(1, 4), u32(0xffffffff, 0, 0))],
    ['a type that is neither', message(4, u32(16, 0, 0, 0), 1, 5)],
  ])('%s ends the connection', async (_name, bytes) => {
    const raw = await RawClient.connect(t.endpoint);
    raw.send(bytes);
    await raw.end();
    raw.close();
    await until(() => t.errors.length === 1);
    expect(t.errors).toMatchObject([{ error: { code: 'ERR_VFIO_USER_PROTOCOL' } }]);
    await isWell();
  });

  test('a VERSION of a megabyte is not waited for', async () => {
    const raw = await RawClient.connect(t.endpoint, false);
    raw.send(message(1, new Uint8Array(32768)));
    await raw.end();
    raw.close();
    await until(() => t.errors.length === 1);
    expect(t.errors).toMatchObject([{ error: { code: 'ERR_VFIO_USER_PROTOCOL' } }]);
  });

  test('replies that nobody asked for are dropped', async () => {
    const raw = await RawClient.connect(t.endpoint);
    const fd = createSharedMemory(4096);
    const open = openFds();
    for (const command of [11, 12, 99]) raw.send(message(command, new Uint8Array(40), 3, 1), [fd]);
    expect(await raw.errnoOf(13)).toBe(0);
    expect(openFds()).toBe(open);
    closeFd(fd);
    raw.close();
  });

  test('descriptors with every byte of a message end the connection before they use up ours', async () => {
    const raw = await RawClient.connect(t.endpoint);
    const fd = createSharedMemory(4096);
    const bytes = message(10, new Uint8Array(4096));
    for (let i = 0; i < 4; i++) raw.send(bytes.subarray(i, i + 1), new Array<number>(100).fill(fd));
    closeFd(fd);
    await raw.end();
    raw.close();
    await until(() => t.errors.length === 1);
    expect(t.errors).toMatchObject([{ error: { code: 'ERR_VFIO_USER_PROTOCOL' } }]);
    await isWell();
  });

  test('any bytes: the server answers or disconnects, and serves the next', async () => {
    const anyMessage = fc
      .record({
        command: fc.nat({ max: 20 }),
        payload: fc.oneof(
          fc.uint8Array({ maxLength: 80 }),
          fc
            .array(fc.oneof(fc.nat({ max: 40 }), fc.constant(4096), fc.nat()), { maxLength: 12 })
            .map((w) => u32(...w)),
        ),
        flags: fc.constantFrom(0, 0, 0, 0, 0x10, 1, 0x20, 0x21),
        fds: fc.nat({ max: 3 }),
      })
      .map(({ command, payload, flags, fds }) => ({ bytes: message(command, payload, 1, flags), fds }));
    const garbage = fc.record({
      bytes: fc.uint8Array({ minLength: 1, maxLength: 200 }),
      fds: fc.nat({ max: 3 }),
    });
    const memory = createSharedMemory(0x10000);
    const event = EventFd.create();
    const open = openFds();
    await fc.assert(
      fc.asyncProperty(
        fc.boolean(),
        fc.array(anyMessage, { maxLength: 12 }),
        garbage,
        async (negotiate, all, last) => {
          const raw = await RawClient.connect(t.endpoint, negotiate);
          try {
            for (const { bytes, fds } of [...all, last])
              raw.send(bytes, [memory, event.fd, memory].slice(0, fds));
          } catch {
            // EPIPE: it was disconnected.
          }
          await turns(5);
          raw.close();
          await isWell();
        },
      ),
      { numRuns: 60 },
    );
    expect(openFds()).toBe(open);
    closeFd(memory);
    event.close();
  });
});
