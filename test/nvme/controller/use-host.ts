// SPDX-License-Identifier: MIT
import type { NvmeControllerOptions } from '../../../lib/nvme/controller';
import { type Command, decodeErrorLog } from '../../../lib/nvme/spec';
import { Address, Host, type HostQueue, type Result } from './support';

/** A host whose controller is enabled and has no I/O queue yet, and admin commands whose data is at {@link Address.data}. */
export class AdminFixture {
  host!: Host;

  async status(command: Command): Promise<string> {
    return (await this.host.adminCommand(command)).status;
  }

  data(length = 4096): Uint8Array {
    return this.host.memory.bytes(Address.data, length);
  }
}

/** Such a host in each test of the file. */
export function useAdmin(options: Partial<NvmeControllerOptions> = {}): AdminFixture {
  const fixture = new AdminFixture();
  beforeEach(() => {
    fixture.host = new Host(options);
    fixture.host.enable();
  });
  afterEach(() => {
    fixture.host.close();
  });
  return fixture;
}

/** A host with an I/O queue, and commands for namespace 1 whose data is at {@link Address.data}. */
export class HostFixture {
  host!: Host;
  queue!: HostQueue;

  /** Begins with a controller, in place of the one that there is. */
  async begin(options: Partial<NvmeControllerOptions> = {}): Promise<void> {
    this.end();
    this.host = new Host(options);
    this.host.enable();
    this.queue = await this.host.createQueues();
    this.host.interrupts.length = 0;
  }

  end(): void {
    (this.host as Host | undefined)?.close();
  }

  run(command: Command): Promise<Result> {
    return this.host.run(this.queue, { nsid: 1, prp1: Address.data, ...command });
  }

  async status(command: Command): Promise<string> {
    return (await this.run(command)).status;
  }

  /** Sends a command and does not wait. Returns its id. */
  send(command: Command, to = this.queue): number {
    const cid = this.host.push(to, { nsid: 1, prp1: Address.data, ...command });
    this.host.ring(to);
    return cid;
  }

  /** Fills blocks of 512 bytes with a byte each. */
  async fill(lba: number, ...values: number[]): Promise<void> {
    for (const [i, value] of values.entries()) {
      this.host.memory.bytes(Address.data, 512).fill(value);
      expect(await this.status({ opcode: 1, cdw10: lba + i })).toBe('00/00');
    }
  }

  /** The byte that each block is full of; the status of a block that cannot be read. */
  async content(lba: number, count: number): Promise<(number | string)[]> {
    const found: (number | string)[] = [];
    for (let i = 0; i < count; i++) {
      const result = await this.status({ opcode: 2, cdw10: lba + i });
      const bytes = this.host.memory.bytes(Address.data, 512);
      const first = bytes[0]!;
      if (result === '00/00') expect(bytes.every((byte) => byte === first)).toBe(true);
      found.push(result === '00/00' ? first : result);
    }
    return found;
  }

  /** The first entry of the error log. */
  async newestError(): Promise<object | undefined> {
    expect((await this.host.adminCommand({ opcode: 2, cdw10: 0x000f_0001 })).status).toBe('00/00');
    return decodeErrorLog(this.host.memory.bytes(Address.data, 64))[0];
  }
}

/** A host in each test of the file, of a controller with 16 MiB of memory. */
export function useHost(): HostFixture {
  const fixture = new HostFixture();
  beforeEach(() => fixture.begin());
  afterEach(() => {
    jest.restoreAllMocks();
    fixture.end();
  });
  return fixture;
}
