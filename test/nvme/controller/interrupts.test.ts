// SPDX-License-Identifier: MIT
/** The pin as a level, MSI, and the masks of both (NVMe over PCIe transport 1.0, 3.5; NVMe base 2.0, 3.1.3.3). */
import { NvmeControllerModel } from '../../../lib/nvme/controller';
import { createBackend } from '../../../lib/nvme/backends';
import { Mapping } from '../../../lib/native';
import { PciIrq } from '../../../lib/pci';
import { Address, Host, turns, until } from './support';

const INTMS = 0x0c;
const INTMC = 0x10;
const IDENTIFY = { opcode: 6, cdw10: 1, prp1: Address.data };

let host: Host;
let calls: string[];
let line: Set<number>;

/** A host whose server tells what becomes of the interrupts, before any message is enabled. */
function start(interrupts: 'msix' | 'msi' | 'intx'): void {
  host = new Host({ interrupts, queuePairs: 2 });
  calls = [];
  line = new Set();
  Object.assign(host.client, {
    setInterrupt: (high: boolean, vector = 0) => {
      calls.push(`${high ? 'high' : 'low'} ${vector}`);
      if (high) line.add(vector);
      else line.delete(vector);
      return high;
    },
  });
  host.enable();
}

afterEach(() => {
  host.close();
});

/** Executes Identify, and leaves its completion where it is. */
async function unread(): Promise<void> {
  host.push(host.admin, IDENTIFY);
  host.ring(host.admin);
  await until(() => host.take(host.admin, false) !== undefined);
}

function acknowledge(): void {
  host.write32(0x1004, host.admin.head);
}

describe('the pin', () => {
  test('is high until the host has taken what is in the queue', async () => {
    start('intx');
    await unread();
    await unread();
    expect([...line]).toEqual([0]);
    host.write32(0x1004, 1); // One of two.
    await turns();
    expect([...line]).toEqual([0]);
    acknowledge();
    // At once: the host may be about to say that it has served the interrupt.
    expect([...line]).toEqual([]);
    await unread();
    expect([...line]).toEqual([0]);
  });

  test('goes low when the doorbell is written in mapped memory', async () => {
    start('intx');
    await unread();
    expect([...line]).toEqual([0]);
    const fd = host.state.regions.get(0)?.shared?.fd as (client: unknown) => number;
    const mapping = Mapping.map(fd(host.client), 0, 0x4000);
    new Int32Array(mapping.buffer)[0x1004 / 4] = host.admin.head;
    await until(() => line.size === 0);
    mapping.close();
  });

  test('INTMS takes it down, and INTMC brings it back', async () => {
    start('intx');
    await unread();
    host.write32(INTMS, 1);
    expect([...line]).toEqual([]);
    await unread();
    expect([...line]).toEqual([]);
    host.write32(INTMC, 1);
    expect([...line]).toEqual([0]);
    host.write32(INTMS, 1);
    acknowledge();
    host.write32(INTMC, 1);
    expect([...line]).toEqual([]);
  });

  test('a reset takes it down, and the mask with it', async () => {
    start('intx');
    await unread();
    host.write32(INTMS, 1);
    host.write32(INTMC, 1);
    expect([...line]).toEqual([0]);
    host.write32(INTMS, 2);
    host.write32(0x14, 0);
    expect([...line]).toEqual([]);
    host.enable();
    await unread();
    expect([...line]).toEqual([0]);
    await host.reset();
    expect([...line]).toEqual([]);
  });

  test('has no other vectors', async () => {
    start('intx');
    const cq = { opcode: 5, prp1: Address.cq, cdw10: 0x000f_0001 };
    expect((await host.adminCommand({ ...cq, cdw11: 0x0001_0003 })).status).toBe('01/08 DNR');
    expect((await host.adminCommand({ ...cq, cdw11: 3 })).status).toBe('00/00');
  });
});

test('a host that enables messages has no level, and the pin again when it disables them', async () => {
  start('msix');
  await unread();
  expect([...line]).toEqual([0]);
  host.controller.configured({ kind: 'msix', enabled: true, functionMask: false });
  expect([...line]).toEqual([]);
  calls.length = 0;
  await unread();
  // The message, and no level behind it.
  expect(calls).toEqual(['high 0', 'low 0']);
  host.write32(INTMS, 1); // It is not for MSI-X.
  calls.length = 0;
  await unread();
  expect(calls).toEqual(['high 0', 'low 0']);
  host.write32(INTMC, 1);
  host.controller.configured({ kind: 'msix', enabled: false, functionMask: false });
  expect([...line]).toEqual([0]);
});

test('INTMS holds messages of MSI back, and INTMC sends them', async () => {
  start('msi');
  host.controller.configured({ kind: 'msi', enabled: true, vectors: 1, mask: 0 });
  host.write32(INTMS, 1);
  calls.length = 0;
  await unread();
  expect(calls).toEqual([]);
  host.write32(INTMC, 1);
  expect(calls).toEqual(['high 0', 'low 0']);
});

test.each([
  ['msix', 64, { msix: 65, msi: 0 }],
  ['msi', 64, { msix: 0, msi: 32 }],
  ['msi', 2, { msix: 0, msi: 4 }],
  ['intx', 64, { msix: 0, msi: 0 }],
] as const)('the function with %s and %i queue pairs', (interrupts, queuePairs, { msix, msi }) => {
  const backend = createBackend({ kind: 'null', size: 512 });
  host = new Host(new NvmeControllerModel({ backend, interrupts, queuePairs }));
  const { irqs, config } = host.state;
  expect(irqs.get(PciIrq.intx)?.count).toBe(1);
  expect(irqs.get(PciIrq.msi)?.count).toBe(msi);
  expect(irqs.get(PciIrq.msix)?.count).toBe(msix);
  expect(config.read(0x3d, 1)[0]).toBe(1); // INTA
});

test('an interrupt that there is not', () => {
  start('msix');
  const backend = createBackend({ kind: 'null', size: 512 });
  expect(() => new NvmeControllerModel({ backend, interrupts: 'msi-x' as never })).toThrow(
    'interrupts is msix, msi or intx, got msi-x',
  );
});
