// SPDX-License-Identifier: MIT
import { serve } from '../../lib/server';
import { MsixTable } from '../../lib/server/msix-table';
import { EventFd } from '../../lib/native';
import { RawClient, TestModel, access, join, setIrqs, u32 } from './support';

/** A table at the beginning of BAR 4 and the pending bits in its second page, and the vectors that were signalled. */
class Fixture {
  readonly signals: number[] = [];
  readonly msix: MsixTable;
  readonly bar: ReturnType<MsixTable['over']>;

  constructor(vectors: number, pending: readonly number[] = []) {
    this.msix = new MsixTable({
      kind: 'msix',
      vectors,
      table: { bar: 4, offset: 0 },
      pba: { bar: 4, offset: 0x1000 },
    });
    this.bar = this.msix.over(4, { size: 0x2000 });
    this.msix.port = {
      send: (vector) => {
        this.signals.push(vector);
        return true;
      },
      pending: (vector) => pending.includes(vector),
    };
  }

  read(offset: number, length: number): number[] {
    const data = new Uint8Array(length);
    void this.bar.read?.(offset, data);
    return [...data];
  }

  write(offset: number, data: Uint8Array): void {
    void this.bar.write?.(offset, data, false);
  }

  mask(vector: number, on: boolean): void {
    this.write(vector * 16 + 12, u32(on ? 1 : 0));
  }

  pba(length = 8): number[] {
    return this.read(0x1000, length);
  }
}

test('after a reset the table reads masked, and signals pass until the client uses it', () => {
  const fixture = new Fixture(2);
  const { msix } = fixture;
  expect(fixture.read(0, 32)).toEqual([...u32(0, 0, 0, 1, 0, 0, 0, 1)]);
  expect(msix.trigger(1)).toBe(true);
  // The address of vector 0 is written: from now on the masks count, of all vectors.
  fixture.write(0, u32(0xfee00000, 0));
  expect([msix.trigger(0), msix.trigger(1)]).toEqual([false, false]);
  expect(fixture.signals).toEqual([1]);
  msix.port = null;
  fixture.mask(0, false);
  expect(msix.trigger(0)).toBe(false);
});

test('a masked vector is pending, and signalled once when its mask goes', () => {
  const t = new Fixture(70);
  for (const vector of [1, 69]) {
    t.mask(vector, true);
    t.msix.trigger(vector);
    t.msix.trigger(vector);
  }
  expect(t.pba(16)).toEqual([2, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0]);
  expect(t.signals).toEqual([]);
  t.mask(69, false);
  expect(t.signals).toEqual([69]);
  expect(t.pba(16)[8]).toBe(0);
  t.mask(69, true);
  t.mask(69, false);
  expect(t.signals).toEqual([69]);
});

test('what is held back is pending, whatever the masks are', () => {
  const t = new Fixture(4);
  t.msix.held = true;
  expect([0, 3].map((vector) => t.msix.trigger(vector))).toEqual([false, false]);
  t.mask(3, true);
  expect(t.pba()[0]).toBe(0b1001);
  // Vector 3 has a mask of its own now, as have those that the client never unmasked.
  t.mask(0, false);
  expect(t.signals).toEqual([]);
  t.msix.held = false;
  expect(t.signals).toEqual([0]);
  expect(t.pba()[0]).toBe(0b1000);
  t.msix.reset();
  expect(t.pba()[0]).toBe(0);
  expect(t.msix.trigger(3)).toBe(true);
});

test('what the client masks with messages is pending too', () => {
  expect(new Fixture(8, [2, 7]).pba()[0]).toBe(0x84);
});

test('a vector that does not exist', () => {
  for (const vector of [-1, 2, 0.5]) expect(() => new Fixture(2).msix.trigger(vector)).toThrow(RangeError);
});

test.each([
  [1, 12],
  [2, 12],
  [4, 2],
  [8, 4],
  [16, 0],
])('a write of %s bytes at %s is refused', (length, offset) => {
  expect(() => {
    new Fixture(2).write(offset, new Uint8Array(length));
  }).toThrow(expect.objectContaining({ name: 'CommandError', errno: 22 }) as Error);
});

test('a BAR may have registers beside the structures, and have one of them only', () => {
  const msix = new MsixTable({
    kind: 'msix',
    vectors: 2,
    table: { bar: 0, offset: 0x20 },
    pba: { bar: 2, offset: 0 },
  });
  const calls: string[] = [];
  const register = {
    size: 0x40,
    read: (offset: number, data: Uint8Array) => {
      calls.push(`read ${offset}`);
      data.fill(0xaa);
    },
    write: (offset: number) => void calls.push(`write ${offset}`),
  };
  const bar = msix.over(0, register);
  const data = new Uint8Array(8);
  void bar.read?.(0, data);
  expect([...data]).toEqual(new Array(8).fill(0xaa));
  void bar.read?.(0x2c, data);
  expect([...data]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  void bar.write?.(0x28, data, false);
  void bar.write?.(0x18, data, false);
  expect(calls).toEqual(['read 0', 'write 24']);
  expect(msix.over(1, register)).toBe(register);
});

test('served: table, pending bits and function mask as a client sees them', async () => {
  const model = new TestModel();
  const path = `@vfio-user-msix-${process.pid}`;
  const server = await serve(path, model);
  const raw = await RawClient.connect(path);
  const event = EventFd.create();
  const readPba = async (): Promise<number[]> => {
    const { payload } = await raw.ask(
      Buffer.from([1, 0, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...access(4, 0x1000, 8)]),
    );
    return [...payload.subarray(16)];
  };
  try {
    expect(await raw.errnoOf(8, setIrqs(4 | 32, 2, 1, 1), [event.fd])).toBe(0);
    // Message Control at 0x42: enable and function mask.
    expect(await raw.errnoOf(10, join(access(7, 0x42, 2), Uint8Array.of(0, 0xc0)))).toBe(0);
    expect(await raw.errnoOf(10, join(access(4, 16 + 12, 4), u32(0)))).toBe(0);
    expect(model.client?.setInterrupt(true, 1)).toBe(false);
    expect(await readPba()).toEqual([2, 0, 0, 0, 0, 0, 0, 0]);
    expect(event.read()).toBe(0);
    expect(await raw.errnoOf(10, join(access(7, 0x42, 2), Uint8Array.of(0, 0x80)))).toBe(0);
    expect(event.read()).toBe(1);
    expect(await readPba()).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    // Pending bits cannot be written; accesses outside of both structures read 0 and write nothing.
    expect(await raw.errnoOf(10, join(access(4, 0x1000, 4), u32(0xff)))).toBe(0);
    expect(await readPba()).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(await raw.errnoOf(10, join(access(4, 12, 2), Uint8Array.of(0, 0)))).toBe(22);
  } finally {
    event.close();
    raw.close();
    await server.close();
    model.close();
  }
});
