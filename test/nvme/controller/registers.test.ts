// SPDX-License-Identifier: MIT
import { Address, Host, turns, until } from './support';

let host: Host;
beforeEach(() => {
  host = new Host();
});
afterEach(() => {
  host.close();
});

/** The errno of the CommandError that an access throws. */
function errnoOf(access: () => void): unknown {
  try {
    access();
  } catch (error) {
    return (error as { errno?: number }).errno;
  }
  return undefined;
}
const EINVAL = 22;

test('CAP, VS and the registers that there are not', () => {
  // NVMe base 2.0, figure "CAP": MQES 3FFh, CQR, TO 1Eh (15 s); then DSTRD 0, CSS bit 0 (37), MPS 4 KiB.
  expect(host.read32(0)).toBe(0x1e01_03ff);
  expect(host.read32(4)).toBe(0x0000_0020);
  expect([...host.read(0, 8)]).toEqual([0xff, 0x03, 0x01, 0x1e, 0x20, 0, 0, 0]);
  expect(host.read32(8)).toBe(0x0001_0400);
  for (const offset of [0x20, 0x38, 0x3c, 0x68, 0xe00]) expect(host.read32(offset)).toBe(0);
});

test('only 4 or 8 aligned bytes are accepted', () => {
  for (const [offset, length] of [
    [0, 1],
    [0, 2],
    [0x14, 3],
    [2, 4],
    [4, 8],
    [0, 16],
    [0, 4096],
  ] as const) {
    expect(errnoOf(() => host.read(offset, length))).toBe(EINVAL);
    expect(
      errnoOf(() => {
        host.write(offset, new Uint8Array(length));
      }),
    ).toBe(EINVAL);
  }
  expect(
    errnoOf(() => {
      host.write(0x18, new Uint8Array(8));
    }),
  ).toBe(EINVAL);
  expect(host.read(0x18, 8)).toHaveLength(8);
});

test('ASQ and ACQ take one access of 8 bytes, or two of 4 with the upper half first', () => {
  host.write(0x28, Uint8Array.of(0xff, 0x5f, 0x34, 0x12, 1, 0, 0, 0));
  expect([host.read32(0x28), host.read32(0x2c)]).toEqual([0x1234_5000, 1]);
  host.write32(0x34, 2);
  host.write32(0x30, 0xf000_0000);
  expect([...host.read(0x30, 8)]).toEqual([0, 0, 0, 0xf0, 2, 0, 0, 0]);
});

test('read-only registers and reserved bits stay', () => {
  for (const offset of [0, 4, 8, 0x1c, 0x20, 0x68, 0xff8]) host.write32(offset, 0xffff_ffff);
  host.write32(0x24, 0xffff_ffff);
  expect([0, 8, 0x1c, 0x20, 0x24, 0x68, 0xff8].map((offset) => host.read32(offset))).toEqual([
    0x1e01_03ff, 0x0001_0400, 0, 0, 0x0fff_0fff, 0, 0,
  ]);
});

test('INTMS sets and INTMC clears the mask, which both read', () => {
  host.write32(0x0c, 0xf0);
  host.write32(0x10, 0x30);
  expect([host.read32(0x0c), host.read32(0x10)]).toEqual([0xc0, 0xc0]);
});

describe('bring-up as others do it', () => {
  test('SeaBIOS: 64 and 256 entries, two dwords with the upper first, Identify 01, then queues without interrupts', async () => {
    host.write32(0x04, 0x107, 7);
    host.write32(0x14, 0);
    expect(host.read32(0x1c)).toBe(0);
    host.write32(0x24, 0x00ff_003f);
    host.write32(0x2c, 0);
    host.write32(0x28, Address.asq);
    host.write32(0x34, 0);
    host.write32(0x30, Address.acq);
    host.write32(0x14, 0x0046_0001);
    expect(host.read32(0x1c)).toBe(1);
    host.admin = host.queue(0, Address.asq, Address.acq, 64, 256);
    expect((await host.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
    expect(
      (await host.adminCommand({ opcode: 5, prp1: Address.cq, cdw10: 0x00ff_0001, cdw11: 1 })).status,
    ).toBe('00/00');
    expect(
      (await host.adminCommand({ opcode: 1, prp1: Address.sq, cdw10: 0x003f_0001, cdw11: 0x1_0001 })).status,
    ).toBe('00/00');
    expect(host.memory.bytes(Address.data + 516, 4)[0]).toBe(32); // NN
    const queue = host.queue(1, Address.sq, Address.cq, 64, 256);
    const interrupts = host.interrupts.length;
    const read = await host.run(queue, { opcode: 2, nsid: 1, prp1: Address.data });
    expect(read.status).toBe('00/00');
    expect(host.interrupts).toHaveLength(interrupts);
  });

  test('Linux: CC without EN first; reset keeps AQA, ASQ and ACQ; shutdown by SHN', async () => {
    host.write32(0x14, 0);
    host.write32(0x24, 0x001f_001f);
    host.write(0x28, Uint8Array.of(0, 0, 0x10, 0, 0, 0, 0, 0));
    host.write(0x30, Uint8Array.of(0, 0, 0x11, 0, 0, 0, 0, 0));
    host.write32(0x14, 0x0046_0000);
    expect([host.read32(0x14), host.read32(0x1c)]).toEqual([0x0046_0000, 0]);
    host.write32(0x14, 0x0046_0001);
    expect(host.read32(0x1c)).toBe(1);
    expect((await host.adminCommand({ opcode: 9, cdw10: 7, cdw11: 0x0001_0001 })).dw0).toBe(0x0001_0001);
    await host.createQueues();
    // sysfs reset
    host.write32(0x14, 0x0046_0000);
    expect([host.read32(0x1c), host.read32(0x14), host.read32(0x24)]).toEqual([0, 0, 0x001f_001f]);
    host.write32(0x14, 0x0046_0000);
    host.enable();
    expect(host.read32(0x1c)).toBe(1);
    await host.createQueues();
    // poweroff
    host.write32(0x14, 0x0046_4001);
    expect(host.read32(0x1c)).toBe(0x9);
  });

  test('SPDK: 256 entries, CC.EN = 0 after SHN', () => {
    host.enable(256, 256);
    expect(host.read32(0x1c)).toBe(1);
    host.write32(0x14, 0x0046_4001);
    expect(host.read32(0x1c)).toBe(0x9);
    host.write32(0x14, 0);
    expect(host.read32(0x1c)).toBe(0);
    host.enable();
    expect(host.read32(0x1c)).toBe(1);
  });

  test('OVMF: admin queues of 2 entries', async () => {
    host.enable(2, 2);
    for (let i = 0; i < 5; i++)
      expect((await host.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
  });
});

describe('CSTS.CFS', () => {
  test.each([
    [
      'an admin queue of 1 entry',
      () => {
        host.write32(0x24, 0x001f_0000);
      },
      0x0046_0001,
    ],
    ['a page size that is not offered', () => undefined, 0x0046_0081],
    ['a command set that is not offered', () => undefined, 0x0046_0061],
    ['an arbitration that is not offered', () => undefined, 0x0046_0801],
    [
      'a queue that is not mapped',
      () => {
        host.write32(0x28, 0x7000_0000);
      },
      0x0046_0001,
    ],
    [
      'a queue above 2^53',
      () => {
        host.write32(0x2c, 0xffff_ffff);
      },
      0x0046_0001,
    ],
  ])('%s', (_, prepare, cc) => {
    host.write32(0x24, 0x001f_001f);
    host.write32(0x28, Address.asq);
    host.write32(0x30, Address.acq);
    prepare();
    host.write32(0x14, cc);
    expect(host.read32(0x1c)).toBe(2);
    host.write32(0x14, 0);
    expect(host.read32(0x1c)).toBe(0);
    host.write32(0x2c, 0);
    host.enable();
    expect(host.read32(0x1c)).toBe(1);
  });

  test('a completion queue that may not be written', () => {
    host.memory.add(0x1000_0000, 0x1000, { writable: false });
    host.write32(0x24, 0x001f_001f);
    host.write32(0x28, Address.asq);
    host.write32(0x30, 0x1000_0000);
    host.write32(0x14, 0x0046_0001);
    expect(host.read32(0x1c)).toBe(2);
    expect(host.controller.fault).toMatch(/admin queues/);
  });

  test('queues in memory that came without a descriptor; who serves the controller is told', () => {
    const faults: string[] = [];
    host.close();
    host = new Host({ onFault: (reason) => faults.push(reason) });
    host.memory.add(0x1000_0000, 0x2000, { distant: true });
    host.write32(0x24, 0x001f_001f);
    host.write32(0x28, 0x1000_0000);
    host.write32(0x30, 0x1000_1000);
    host.write32(0x14, 0x0046_0001);
    expect(host.read32(0x1c)).toBe(2);
    expect(faults).toEqual([host.controller.fault]);
    expect(faults[0]).toMatch(/share=on/);
    host.write32(0x14, 0);
    host.enable();
    expect(host.read32(0x1c)).toBe(1);
    expect(faults).toHaveLength(1);
  });
});

describe('doorbells', () => {
  test('lie in a file that can be mapped, and take messages of 4 bytes', () => {
    const bar = host.controller.pci.bars?.[0];
    expect(bar?.size).toBe(0x4000);
    expect(bar?.shared?.areas).toEqual([{ offset: 0x1000, size: 0x1000 }]);
    host.enable();
    host.write32(0x1000, 0x1234);
    expect(host.read32(0x1000)).toBe(0x1234);
    // There is no queue 1.
    host.write32(0x1008, 0x1234);
    expect(host.read32(0x1008)).toBe(0);
    for (const [offset, length] of [
      [0x1000, 2],
      [0x1000, 8],
      [0x1002, 4],
      [0x1208, 4],
      [0x3ffc, 4],
    ] as const) {
      expect(
        errnoOf(() => {
          host.write(offset, new Uint8Array(length));
        }),
      ).toBe(EINVAL);
      expect(errnoOf(() => host.read(offset, length))).toBe(EINVAL);
    }
  });

  test('are 64 bytes apart with DSTRD 4', async () => {
    const wide = new Host({ dstrd: 4, mappableDoorbells: false });
    expect(wide.read32(4) & 0xf).toBe(4);
    expect(wide.controller.pci.bars?.[0]?.shared).toBeUndefined();
    wide.enable();
    wide.push(wide.admin, { opcode: 6, cdw10: 1, prp1: Address.data });
    wide.write32(0x1000, 1);
    await until(() => wide.take(wide.admin, false) !== undefined);
    wide.write32(0x1040, 1);
    expect(wide.read32(0x1040)).toBe(1);
    wide.close();
  });

  test('are cleared by a controller reset', async () => {
    host.enable();
    await host.adminCommand({ opcode: 6, cdw10: 1 });
    expect(host.read32(0x1000)).toBe(1);
    host.write32(0x14, 0);
    expect(host.read32(0x1000)).toBe(0);
    await turns();
    host.enable();
    expect((await host.adminCommand({ opcode: 6, cdw10: 1 })).sqHead).toBe(1);
  });
});

describe('configuration space and MSI-X', () => {
  test('has the class, the BARs and the capabilities of an NVMe controller', () => {
    expect(host.read32(0, 7)).toBe(0x0001_4e58);
    expect(host.read32(8, 7) >>> 8).toBe(0x010802);
    host.write32(0x10, 0xffff_ffff, 7);
    expect(host.read32(0x10, 7)).toBe(0xffff_c004);
    host.write32(0x20, 0xffff_ffff, 7);
    expect(host.read32(0x20, 7)).toBe(0xffff_e000);
    const counts = Array.from(host.state.irqs, ([index, { count }]) => [index, count]);
    expect(Object.fromEntries(counts)).toEqual({ 0: 1, 1: 0, 2: 65, 3: 1 });
    expect(host.read(0, 4096, 7)).toHaveLength(4096);
  });

  test('a function level reset resets the controller', () => {
    host.enable();
    let capability = host.read(0x34, 1, 7)[0] as number;
    while (host.read(capability, 1, 7)[0] !== 0x10) capability = host.read(capability + 1, 1, 7)[0] as number;
    host.write(capability + 8, Uint8Array.of(0, 0x80), 7);
    expect([host.read32(0x14), host.read32(0x1c), host.read32(0x24)]).toEqual([0, 0, 0]);
  });

  test('the MSI-X table keeps what is written, the PBA is 0', () => {
    expect(host.read32(12, 4)).toBe(1);
    host.write32(0, 0xfee0_0000, 4);
    host.write32(12, 0, 4);
    expect([host.read32(0, 4), host.read32(12, 4), host.read32(28, 4)]).toEqual([0xfee0_0000, 0, 1]);
    host.write32(0x1000, 0xffff_ffff, 4);
    expect(host.read32(0x1000, 4)).toBe(0);
    expect(
      errnoOf(() => {
        host.write(0, new Uint8Array(2), 4);
      }),
    ).toBe(EINVAL);
    expect([...host.read(0x1ff8, 8, 4)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  });
});

test('options that make no sense are refused', () => {
  for (const options of [
    { blockSize: 1024 as 512 },
    { maxTransfer: 5000 },
    { maxTransfer: 2 << 20 },
    { queuePairs: 0 },
    { queuePairs: 65 },
    { maxQueueEntries: 1 },
    { dstrd: 5 },
    { pollSlice: -1 },
    { idleAfter: NaN },
    { serial: 'x'.repeat(21) },
    { serial: ' ' },
    { model: '\n' },
  ]) {
    expect(() => new Host(options)).toThrow(/serial|model|is |are /);
  }
});
