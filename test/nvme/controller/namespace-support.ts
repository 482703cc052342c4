// SPDX-License-Identifier: MIT
import { type Backend, MemoryBackend, createBackend } from '../../../lib/nvme/backends';
import { decodeChangedNamespaces } from '../../../lib/nvme/spec';
import { Address, type Host } from './support';

export const MIB = 1 << 20;

export function memory(size = MIB): Backend {
  return createBackend({ kind: 'memory', size });
}

/** A backend of which a test tells when a flush ends, and how. */
export class SlowBackend extends MemoryBackend {
  override readonly volatileCache = true as never;
  flushes = 0;
  closed = false;
  gate: Promise<void> = Promise.resolve();

  override flush(): Promise<void> {
    this.flushes++;
    return this.gate;
  }

  override close(): void {
    this.closed = true;
    super.close();
  }
}

/** What an Identify tells, which must succeed. */
export async function identified(host: Host, cns: number, nsid = 0): Promise<Uint8Array> {
  const data = host.memory.bytes(Address.data, 4096).fill(0xff);
  expect((await host.adminCommand({ opcode: 6, nsid, cdw10: cns })).status).toBe('00/00');
  return data.slice();
}

/** Asks to be told of changes of namespaces. */
export async function askForNotices(host: Host): Promise<void> {
  expect((await host.adminCommand({ opcode: 9, cdw10: 0x0b, cdw11: 0x100 })).status).toBe('00/00');
}

/** Reads the Changed Namespace List, with Retain Asynchronous Event or without. */
export async function changedNamespaces(host: Host, retain = false): Promise<number[] | 'all'> {
  const cdw10 = 0x03ff_0004 | (retain ? 0x8000 : 0);
  expect((await host.adminCommand({ opcode: 2, cdw10 })).status).toBe('00/00');
  return decodeChangedNamespaces(host.memory.bytes(Address.data, 4096));
}
