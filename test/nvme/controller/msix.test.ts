// SPDX-License-Identifier: MIT
import { Host, turns } from './support';

const [BAR4, CONFIG] = [4, 7];
/** Pending bit array, and Vector Control of a vector (PCI Local Bus 3.0, 6.8.2). */
const PBA = 0x1000;
const control = (vector: number): number => 16 * vector + 12;
/** Message Control of MSI-X, behind power management and PCI Express; its bits 15 and 14 are enable and function mask. */
const MESSAGE_CONTROL = 0x86;
const [ENABLE, FUNCTION_MASK] = [0x8000, 0x4000];
const KEEP_ALIVE = 0x18;
const signal = (vector: number): number => vector;

let host: Host;
beforeEach(() => {
  host = new Host();
  host.enable();
});
afterEach(() => {
  host.close();
});

const pending = (): number => host.read32(PBA, BAR4);
const setControl = (value: number): void => {
  host.write(MESSAGE_CONTROL, new Uint8Array(Uint16Array.of(value).buffer), CONFIG);
};

test('a masked vector is pending, and signalled once when its mask goes', async () => {
  const queue = await host.createQueues(3);
  host.write32(control(0), 0, BAR4);
  host.write32(control(3), 1, BAR4);
  host.interrupts.length = 0;
  const counted = host.controller.statistics.interrupts;
  for (let i = 0; i < 2; i++) {
    // Flush of namespace 1.
    expect((await host.run(queue, { opcode: 0, nsid: 1 })).status).toBe('00/00');
  }
  expect(host.interrupts).toEqual([]);
  expect(host.controller.statistics.interrupts).toBe(counted);
  expect(pending()).toBe(1 << 3);
  // Nobody writes the pending bits.
  host.write32(PBA, 0, BAR4);
  expect(pending()).toBe(1 << 3);
  host.write32(control(3), 0, BAR4);
  expect(host.interrupts).toEqual([signal(3)]);
  expect(pending()).toBe(0);
  await host.run(queue, { opcode: 0, nsid: 1 });
  expect(host.interrupts).toEqual([signal(3), signal(3)]);
});

test('the function mask holds the admin vector back', async () => {
  host.interrupts.length = 0;
  setControl(ENABLE | FUNCTION_MASK);
  await host.adminCommand({ opcode: KEEP_ALIVE });
  await turns();
  expect([host.interrupts, pending()]).toEqual([[], 1]);
  setControl(ENABLE);
  expect([host.interrupts, pending()]).toEqual([[signal(0)], 0]);
});

test('a client that leaves the table alone gets its interrupts', async () => {
  host.interrupts.length = 0;
  expect(host.read32(control(0), BAR4)).toBe(1);
  await host.adminCommand({ opcode: KEEP_ALIVE });
  expect([host.interrupts, pending()]).toEqual([[signal(0)], 0]);
});

test.each<[string, () => unknown]>([
  ['a reset of the device', () => host.reset()],
  [
    'a function level reset',
    () => {
      // Initiate Function Level Reset, bit 15 of Device Control.
      host.write(0x50, Uint8Array.of(0, 0x80), CONFIG);
    },
  ],
  [
    'the next client',
    () => {
      host.detach();
      host.attach();
    },
  ],
])('%s: nothing is pending or masked by the client any more', async (_, reset) => {
  host.write(16, new Uint8Array(Uint32Array.of(0xfee0_0000, 0).buffer), BAR4);
  await host.adminCommand({ opcode: KEEP_ALIVE });
  expect(pending()).toBe(1);
  host.interrupts.length = 0;
  await reset();
  expect([host.interrupts, pending(), host.read32(16, BAR4), host.read32(control(1), BAR4)]).toEqual([
    [],
    0,
    0,
    1,
  ]);
  host.enable();
  await host.adminCommand({ opcode: KEEP_ALIVE });
  expect(host.interrupts).toEqual([signal(0)]);
});

test('a reset by CC.EN leaves the table as it is', async () => {
  host.write32(control(0), 1, BAR4);
  await host.adminCommand({ opcode: KEEP_ALIVE });
  host.write32(0x14, 0);
  host.enable();
  expect(pending()).toBe(1);
  host.interrupts.length = 0;
  host.write32(control(0), 0, BAR4);
  expect(host.interrupts).toEqual([signal(0)]);
});

test.each([
  [1, 0],
  [2, 12],
  [4, 2],
  [16, 0],
])('a write of %p bytes at %p of the table is refused', (length, offset) => {
  expect(() => {
    host.write(offset, new Uint8Array(length), BAR4);
  }).toThrow(expect.objectContaining({ name: 'CommandError', errno: 22 }) as Error);
});
