// SPDX-License-Identifier: MIT
import { ConfigSpace, PciIrq, PciRegion } from '../../lib/pci';
import { MsixTable, configRegion, serve, type Client } from '../../lib/server';
import { EventFd } from '../../lib/native';
import { RawClient, TestModel, access, join, setIrqs, u32 } from './support';

/** A client that notes what it is signalled. */
function fakeClient(pending: number[] = []): Client & { signals: number[] } {
  const signals: number[] = [];
  return {
    name: 'test',
    memory: {} as Client['memory'],
    signals,
    trigger: (index, vector) => {
      expect(index).toBe(PciIrq.msix);
      signals.push(vector);
      return true;
    },
    pending: (_index, vector) => pending.includes(vector),
  };
}

const maskBit = (msix: MsixTable, vector: number, on: boolean): void => {
  msix.writeTable(vector * 16 + 12, u32(on ? 1 : 0));
};
const pba = (msix: MsixTable): number[] => {
  const data = new Uint8Array(msix.pbaBytes);
  msix.readPba(0, data);
  return [...data];
};

test('after a reset the table reads masked, and signals pass until the client uses it', () => {
  const msix = new MsixTable(2);
  const client = fakeClient();
  expect(msix.trigger(0)).toBe(false);
  msix.attach(client);
  const data = new Uint8Array(32);
  msix.readTable(0, data);
  expect([...new Uint32Array(data.buffer)]).toEqual([0, 0, 0, 1, 0, 0, 0, 1]);
  expect(msix.trigger(1)).toBe(true);
  // The address of vector 0 is written: from now on the masks count, of all vectors.
  msix.writeTable(0, u32(0xfee00000, 0));
  expect([msix.trigger(0), msix.trigger(1)]).toEqual([false, false]);
  expect(client.signals).toEqual([1]);
  msix.detach();
  maskBit(msix, 0, false);
  expect(msix.trigger(0)).toBe(false);
});

test('a masked vector is pending, and signalled once when its mask goes', () => {
  const msix = new MsixTable(70);
  const client = fakeClient();
  msix.attach(client);
  for (const vector of [1, 69]) {
    maskBit(msix, vector, true);
    msix.trigger(vector);
    msix.trigger(vector);
  }
  expect(msix.pbaBytes).toBe(16);
  expect(pba(msix)).toEqual([2, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0]);
  expect(client.signals).toEqual([]);
  maskBit(msix, 69, false);
  expect(client.signals).toEqual([69]);
  expect(pba(msix)[8]).toBe(0);
  maskBit(msix, 69, true);
  maskBit(msix, 69, false);
  expect(client.signals).toEqual([69]);
});

test('the function mask holds all vectors back', () => {
  const msix = new MsixTable(4);
  const client = fakeClient();
  msix.attach(client);
  msix.configure({ kind: 'msix', enabled: true, functionMask: true });
  msix.configure({ kind: 'function-level-reset' });
  expect([0, 3].map((vector) => msix.trigger(vector))).toEqual([false, false]);
  maskBit(msix, 3, true);
  expect(pba(msix)[0]).toBe(0b1001);
  // Vector 3 has a mask of its own now, as have those that the client never unmasked.
  maskBit(msix, 0, false);
  expect(client.signals).toEqual([]);
  msix.configure({ kind: 'msix', enabled: true, functionMask: false });
  expect(client.signals).toEqual([0]);
  expect(pba(msix)[0]).toBe(0b1000);
  msix.reset();
  expect(pba(msix)[0]).toBe(0);
  expect(msix.masked(3)).toBe(false);
});

test('what the client masks with messages is pending too', () => {
  const msix = new MsixTable(8);
  expect(pba(msix)[0]).toBe(0);
  msix.attach(fakeClient([2, 7]));
  expect(pba(msix)[0]).toBe(0x84);
});

test.each([0, 2049, 1.5])('%s vectors', (vectors) => {
  expect(() => new MsixTable(vectors)).toThrow(RangeError);
});

test('a vector that does not exist', () => {
  const msix = new MsixTable(2);
  for (const vector of [-1, 2, 0.5]) expect(() => msix.trigger(vector)).toThrow(RangeError);
});

test.each([
  [1, 12],
  [2, 12],
  [4, 2],
  [8, 4],
  [16, 0],
])('a write of %s bytes at %s is refused', (length, offset) => {
  const msix = new MsixTable(2);
  expect(() => {
    msix.writeTable(offset, new Uint8Array(length));
  }).toThrow(expect.objectContaining({ name: 'CommandError', errno: 22 }) as Error);
});

test.each([
  [{ size: 0x1000, table: 0, pba: 0x1000 }],
  [{ size: 0x1000, table: 4, pba: 0x800 }],
  [{ size: 0x1000, table: 0, pba: 0x18 }],
  [{ size: 0x1000, table: -8, pba: 0x800 }],
])('the layout %j does not fit', (layout) => {
  expect(() => new MsixTable(2).region(layout)).toThrow(TypeError);
});

test('the pending bits may come first', () => {
  expect(new MsixTable(2).region({ size: 0x28, table: 8, pba: 0 }).size).toBe(0x28);
});

test('served: table, pending bits and function mask as a client sees them', async () => {
  const msix = new MsixTable(4);
  const model = new TestModel();
  const space = new ConfigSpace({
    vendorId: 0x1234,
    deviceId: 1,
    classCode: 0xff0000,
    bars: { 4: { kind: 'memory32', size: 0x2000 } },
    capabilities: [
      { kind: 'msix', vectors: 4, table: { bar: 4, offset: 0 }, pba: { bar: 4, offset: 0x1000 } },
    ],
  });
  model.regions.set(PciRegion.bar4, msix.region({ size: 0x2000, table: 0, pba: 0x1000 }));
  model.regions.set(
    PciRegion.config,
    configRegion(space, (effect) => {
      msix.configure(effect);
    }),
  );
  model.attach = (client) => {
    msix.attach(client);
  };
  const path = `@vfio-user-msix-${process.pid}`;
  const server = await serve(path, model);
  const raw = await RawClient.connect(path);
  const event = EventFd.create();
  try {
    expect(await raw.errnoOf(8, setIrqs(4 | 32, 2, 1, 1), [event.fd])).toBe(0);
    // Message Control at 0x42: enable and function mask.
    expect(await raw.errnoOf(10, join(access(7, 0x42, 2), Uint8Array.of(0, 0xc0)))).toBe(0);
    expect(await raw.errnoOf(10, join(access(4, 16 + 12, 4), u32(0)))).toBe(0);
    expect(msix.trigger(1)).toBe(false);
    const readPba = async (): Promise<number[]> => {
      const { payload } = await raw.ask(
        Buffer.from([1, 0, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...access(4, 0x1000, 8)]),
      );
      return [...payload.subarray(16)];
    };
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
