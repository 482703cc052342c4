// SPDX-License-Identifier: MIT
/** Features that are data structures, and what log pages tell of the life of the controller. */
import { BackendResult, type SynchronousBackend, createBackend } from '../../../lib/nvme/backends';
import { type Command, decodeErrorLog, decodeSmartLog, type SmartLog } from '../../../lib/nvme/spec';
import { Address, Host, until } from './support';

let host: Host;
beforeEach(() => {
  host = new Host();
  host.enable();
});
afterEach(() => {
  host.close();
});

const admin = async (command: Command): Promise<string> => (await host.adminCommand(command)).status;
const data = (length: number): Uint8Array => host.memory.bytes(Address.data, length);

async function smart(): Promise<SmartLog> {
  expect(await admin({ opcode: 2, cdw10: 0x007f_0002, nsid: 0xffff_ffff })).toBe('00/00');
  return decodeSmartLog(data(512));
}

describe('Host Behavior Support', () => {
  const get = { opcode: 0x0a, cdw10: 0x16 };
  const set = { opcode: 0x09, cdw10: 0x16 };

  test('keeps what the host says of itself until a controller reset', async () => {
    data(512).fill(0xff);
    expect(await admin(get)).toBe('00/00');
    expect(data(512)).toEqual(new Uint8Array(512));
    data(512).fill(0);
    data(512)[0] = 1;
    data(512)[2] = 1;
    const said = data(512).slice();
    expect(await admin(set)).toBe('00/00');
    for (const [select, expected] of [
      [0, said],
      [1, new Uint8Array(512)],
      [2, new Uint8Array(512)],
    ] as const) {
      data(512).fill(0xff);
      expect(await admin({ ...get, cdw10: 0x16 | (select << 8) })).toBe('00/00');
      expect(data(512)).toEqual(expected);
    }
    expect(await host.adminCommand({ ...get, cdw10: 0x0316 })).toMatchObject({ status: '00/00', dw0: 4 });
    host.write32(0x14, 0);
    await until(() => host.read32(0x1c) === 0);
    host.enable();
    expect(await admin(get)).toBe('00/00');
    expect(data(512)).toEqual(new Uint8Array(512));
  });

  test.each<[string, number, number, object, string]>([
    ['a value that is reserved', 0, 2, {}, '00/02 DNR'],
    ['a byte that is reserved', 5, 1, {}, '00/02 DNR'],
    ['saving', 0, 1, { cdw10: 0x8000_0016 }, '01/0d DNR'],
    ['a namespace', 0, 1, { nsid: 1 }, '01/0f DNR'],
    ['memory that is not mapped', 0, 1, { prp1: 0x4000_0000 }, '00/04'],
  ])('%s is refused', async (_, index, value, more, expected) => {
    data(512).fill(0);
    data(512)[index] = value;
    expect(await admin({ ...set, ...more })).toBe(expected);
    expect(await admin(get)).toBe('00/00');
    expect(data(512)).toEqual(new Uint8Array(512));
  });
});

test('Timestamp runs from power-on, then from what the host sets, also across a controller reset', async () => {
  const get = { opcode: 0x0a, cdw10: 0x0e };
  const read = async (): Promise<[time: number, attributes: number]> => {
    expect(await admin(get)).toBe('00/00');
    const view = new DataView(data(8).slice().buffer);
    return [Number(view.getBigUint64(0, true) & 0xffff_ffff_ffffn), view.getUint16(6, true)];
  };
  const [first, origin] = await read();
  expect(first).toBeLessThan(60_000);
  expect(origin).toBe(0);
  const now = 1_800_000_000_000;
  new DataView(data(8).buffer, data(8).byteOffset).setBigUint64(0, BigInt(now), true);
  expect(await admin({ opcode: 9, cdw10: 0x0e })).toBe('00/00');
  host.write32(0x14, 0);
  await until(() => host.read32(0x1c) === 0);
  host.enable();
  const [later, attributes] = await read();
  expect(later).toBeGreaterThanOrEqual(now);
  expect(later).toBeLessThan(now + 60_000);
  expect(attributes).toBe(2);
});

test.each<[string, Partial<Command>, string]>([
  ['a namespace', { nsid: 1 }, '00/02 DNR'],
  ['a namespace that there cannot be', { nsid: 77 }, '00/02 DNR'],
  ['an index in place of an offset', { cdw14: 1 << 23 }, '00/02 DNR'],
  ['all namespaces', { nsid: 0xffff_ffff }, '00/00'],
  ['effects of zoned namespaces', { cdw10: 0x000f_0005, cdw14: 2 << 24 }, '00/02 DNR'],
])('Get Log Page with %s', async (_, more, expected) => {
  expect(await admin({ opcode: 2, cdw10: 0x000f_0002, ...more })).toBe(expected);
});

describe('SMART', () => {
  test('power cycles, and shutdowns that were none', async () => {
    expect(await smart()).toMatchObject({ power_cycles: 1n, unsafe_shutdowns: 0n });
    // A client that goes without a word.
    host.detach();
    host.attach();
    host.enable();
    expect(await smart()).toMatchObject({ power_cycles: 2n, unsafe_shutdowns: 1n });
    // One that shuts the controller down.
    host.write32(0x14, 0x0046_4001);
    await until(() => (host.read32(0x1c) & 0xc) === 8);
    host.detach();
    host.attach();
    host.enable();
    expect(await smart()).toMatchObject({ power_cycles: 3n, unsafe_shutdowns: 1n });
    // A reset of the machine.
    await host.reset();
    host.enable();
    expect(await smart()).toMatchObject({ power_cycles: 3n, unsafe_shutdowns: 2n });
    // One that had disabled it.
    host.write32(0x14, 0);
    await until(() => host.read32(0x1c) === 0);
    host.detach();
    host.attach();
    host.enable();
    expect(await smart()).toMatchObject({ power_cycles: 4n, unsafe_shutdowns: 2n });
  });

  test('media errors, with the block in the error log', async () => {
    host.close();
    const memory = createBackend({ kind: 'memory', size: 1 << 20 });
    const bad = (offset: number): boolean => offset === 5 * 512;
    const backend: SynchronousBackend = {
      kind: 'bad',
      size: 1 << 20,
      volatileCache: false,
      read: (offset, ...rest) => (bad(offset) ? BackendResult.mediumError : memory.read(offset, ...rest)),
      write: (offset, ...rest) => (bad(offset) ? BackendResult.mediumError : memory.write(offset, ...rest)),
      zero: (...rest) => memory.zero(...rest),
      deallocate: (...rest) => memory.deallocate(...rest),
      flush: () => memory.flush(),
      close: () => {
        memory.close();
      },
    };
    host = new Host({ backend });
    host.enable();
    const queue = await host.createQueues();
    for (const [opcode, cdw10, expected] of [
      [2, 5, '02/81'],
      [1, 5, '02/80'],
      [0x0c, 5, '02/81'],
      [5, 4, '02/85 DNR'],
    ] as const) {
      data(512).fill(1);
      const { status } = await host.run(queue, { opcode, nsid: 1, cdw10, prp1: Address.data });
      expect(status).toBe(expected);
    }
    expect(await smart()).toMatchObject({ media_errors: 3n, num_err_log_entries: 4n });
    expect(await admin({ opcode: 2, cdw10: 0x003f_0001 })).toBe('00/00');
    expect(decodeErrorLog(data(256)).map(({ lba, nsid }) => [lba, nsid])).toEqual([
      [4n, 1],
      [5n, 1],
      [5n, 1],
      [5n, 1],
    ]);
  });
});
