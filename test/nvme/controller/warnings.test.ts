// SPDX-License-Identifier: MIT
/** What whoever serves the controller is told, since the host sees a status code alone: why, and not more often than anybody reads. */
import { mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BackendError, BackendResult, FileBackend, customBackend } from '../../../lib/nvme/backends';
import { Address, Host, until } from './support';

const FLUSH = { opcode: 0x00, nsid: 1 };
const WRITE = { opcode: 0x01, nsid: 1, prp1: Address.data };
const WRITE_FAULT = '02/80';

let folder: string;
let host: Host;
const warnings: string[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nvme-'));
  warnings.length = 0;
});
afterEach(() => {
  host.close();
  rmSync(folder, { recursive: true });
});

test('why a flush has failed: the file and the errno, once', async () => {
  const path = join(folder, 'disk');
  const backend = new FileBackend(path, 1 << 20);
  host = new Host({ backend, onWarning: (reason) => warnings.push(reason) });
  host.enable();
  const queue = await host.createQueues();
  expect((await host.run(queue, FLUSH)).status).toBe('00/00');
  truncateSync(path, 4096);
  for (let i = 0; i < 20; i++) expect((await host.run(queue, FLUSH)).status).toBe(WRITE_FAULT);
  expect(warnings).toEqual([
    expect.stringMatching(/^Namespace 1 was not made durable: Flushing .*disk, which was truncated.*ENXIO$/),
  ]);
  host.close();
  expect(warnings.slice(1)).toEqual([expect.stringContaining('(19 more such reports')]);
});

test('why a write with Force Unit Access, and the flush of a shutdown, have failed', async () => {
  const backend = customBackend({
    size: 1 << 20,
    read: () => undefined,
    write: () => undefined,
    flush: () => {
      throw new BackendError(BackendResult.mediumError, 'the disk is on fire');
    },
  });
  host = new Host({ backend, onWarning: (reason) => warnings.push(reason) });
  host.enable();
  const queue = await host.createQueues();
  expect((await host.run(queue, { ...WRITE, cdw12: 2 ** 30 })).status).toBe(WRITE_FAULT);
  expect(warnings).toEqual(['Namespace 1 was not made durable: the disk is on fire']);
  // CC.SHN, and CSTS.SHST: 2 is complete.
  host.write32(0x14, 0x0046_4001);
  await until(() => ((host.read32(0x1c) >> 2) & 3) === 2, 'the shutdown');
  expect(warnings.slice(1)).toEqual(['What was written is not durable at shutdown: the disk is on fire']);
});

test('a client that asks for impossible queues again and again does not fill a log', async () => {
  host = new Host({ onWarning: (reason) => warnings.push(reason) });
  host.enable();
  for (let i = 1; i <= 300; i++) {
    const cq = { opcode: 0x05, prp1: 0x8000_0000 + i * 4096, cdw10: (15 << 16) | ((i % 60) + 1), cdw11: 1 };
    expect((await host.adminCommand(cq)).status).toBe('00/04');
  }
  expect(warnings).toEqual([expect.stringMatching(/^Completion queue 2 was not created: /)]);
});
