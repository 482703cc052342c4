// SPDX-License-Identifier: MIT
import { type AsynchronousBackend, BackendResult } from '../../../lib/nvme/backends';
import { Address, Host, type HostQueue, turns, until } from './support';

const READ = 2;
const WRITE = 1;
const COMPARE = 5;
const SIZE = 16 << 20;

/** A backend in memory whose accesses end when the test lets them. */
class GatedBackend implements AsynchronousBackend {
  readonly asynchronous = true;
  readonly kind = 'gated';
  readonly size = SIZE;
  readonly volatileCache = true;
  readonly bytes = new Uint8Array(SIZE);
  readonly calls: string[] = [];
  result: BackendResult = BackendResult.success;
  gate: Promise<void> = Promise.resolve();
  closed = false;

  async read(offset: number, target: Uint8Array, at: number, length: number): Promise<BackendResult> {
    await this.#enter(`read ${offset}+${length}`);
    target.set(this.bytes.subarray(offset, offset + length), at);
    return this.result;
  }

  async write(offset: number, source: Uint8Array, at: number, length: number): Promise<BackendResult> {
    await this.#enter(`write ${offset}+${length}`);
    this.bytes.set(source.subarray(at, at + length), offset);
    return this.result;
  }

  async zero(offset: number, length: number, deallocate: boolean): Promise<BackendResult> {
    await this.#enter(`zero ${offset}+${length}${deallocate ? ' deallocate' : ''}`);
    this.bytes.fill(0, offset, offset + length);
    return this.result;
  }

  async deallocate(offset: number, length: number): Promise<BackendResult> {
    await this.#enter(`deallocate ${offset}+${length}`);
    return this.result;
  }

  async flush(): Promise<void> {
    await this.#enter('flush');
    if (this.result !== BackendResult.success) throw new Error('the flush failed');
  }

  close(): void {
    this.closed = true;
  }

  async #enter(call: string): Promise<void> {
    this.calls.push(call);
    await this.gate;
  }
}

let backend: GatedBackend;
let host: Host;
let queue: HostQueue;
beforeEach(async () => {
  backend = new GatedBackend();
  host = new Host({ backend });
  host.enable();
  queue = await host.createQueues(1, 64, 64);
});
afterEach(() => {
  host.close();
  expect(backend.closed).toBe(true);
});

async function status(command: Parameters<Host['run']>[1]): Promise<string> {
  return (await host.run(queue, { nsid: 1, prp1: Address.data, ...command })).status;
}

/** Holds all accesses of the backend until the returned function is called. */
function hold(): () => void {
  let open = (): void => undefined;
  backend.gate = new Promise((resolve) => (open = resolve));
  return open;
}

test('commands move data, flush and zero', async () => {
  const data = host.memory.bytes(Address.data, 4096);
  data.forEach((_, i) => (data[i] = (i * 7) & 0xff));
  const written = data.slice();
  expect(await status({ opcode: WRITE, cdw10: 8, cdw12: 7 })).toBe('00/00');
  expect(backend.bytes.subarray(4096, 8192)).toEqual(written);
  data.fill(0);
  expect(await status({ opcode: READ, cdw10: 8, cdw12: 7 })).toBe('00/00');
  expect(data).toEqual(written);
  expect(await status({ opcode: COMPARE, cdw10: 8, cdw12: 7 })).toBe('00/00');
  data[4095]! ^= 1;
  expect(await status({ opcode: COMPARE, cdw10: 8, cdw12: 7 })).toBe('02/85 DNR');
  expect(await status({ opcode: 0 })).toBe('00/00');
  expect(await status({ opcode: WRITE, cdw10: 100, cdw12: 0x4000_0000 })).toBe('00/00');
  expect(await status({ opcode: 8, cdw10: 8, cdw12: 3 })).toBe('00/00');
  expect(await status({ opcode: 8, cdw10: 0, cdw12: 0x0200_1fff })).toBe('00/00');
  expect(backend.calls).toEqual([
    'write 4096+4096',
    'read 4096+4096',
    'read 4096+4096',
    'read 4096+4096',
    'flush',
    'write 51200+512',
    'flush',
    'zero 4096+2048',
    'zero 0+4194304 deallocate',
  ]);
  expect(host.controller.statistics).toMatchObject({ readCommands: 1, writeCommands: 2, errors: 1 });
});

test('many run side by side, and each completes when its access ends', async () => {
  const open = hold();
  const cids = Array.from({ length: 40 }, (_, i) =>
    host.push(queue, { opcode: i % 2 === 0 ? WRITE : READ, nsid: 1, prp1: Address.data, cdw10: i }),
  );
  host.ring(queue);
  await until(() => backend.calls.length === 40);
  expect(host.take(queue)).toBeUndefined();
  open();
  const done = new Set<number>();
  for (let i = 0; i < 40; i++) done.add((await host.completion(queue)).cid);
  expect(done).toEqual(new Set(cids));
});

test('memory of the client that goes while an access runs is an error of the command, and touched by nobody', async () => {
  const open = hold();
  const far = host.memory.add(0x1000_0000, 0x1000);
  far.bytes.fill(0x55);
  const write = host.push(queue, { opcode: WRITE, nsid: 1, prp1: 0x1000_0000 });
  const read = host.push(queue, { opcode: READ, nsid: 1, prp1: 0x1000_0000, cdw10: 9 });
  host.ring(queue);
  await until(() => backend.calls.length === 2);
  host.controller.unmapping(far);
  host.memory.remove(far);
  far.bytes.fill(0xaa);
  open();
  const results = [await host.completion(queue), await host.completion(queue)];
  expect(results.find(({ cid }) => cid === write)?.status).toBe('00/00');
  expect(results.find(({ cid }) => cid === read)?.status).toBe('00/04');
  // The write has what was there when it began.
  expect(backend.bytes[0]).toBe(0x55);
  expect(far.bytes.every((byte) => byte === 0xaa)).toBe(true);
});

test('a reset is over when the accesses have ended, and what they read goes nowhere', async () => {
  const open = hold();
  host.memory.bytes(Address.data, 512).fill(0x11);
  host.push(queue, { opcode: READ, nsid: 1, prp1: Address.data });
  host.ring(queue);
  await until(() => backend.calls.length === 1);
  host.write32(0x14, 0);
  await turns();
  expect(host.read32(0x1c) & 1).toBe(1);
  open();
  await until(() => (host.read32(0x1c) & 1) === 0);
  expect(host.memory.bytes(Address.data, 512).every((byte) => byte === 0x11)).toBe(true);
});

test.each([
  ['mediumError', '02/81', '02/80'],
  ['outOfSpace', '00/81', '00/81'],
  ['unavailable', '00/82', '00/82'],
  ['internalError', '00/06', '00/06'],
] as const)('accesses that end with %s', async (result, reading, writing) => {
  backend.result = BackendResult[result];
  expect(await status({ opcode: READ })).toBe(reading);
  expect(await status({ opcode: COMPARE })).toBe(reading);
  expect(await status({ opcode: WRITE })).toBe(writing);
  expect(await status({ opcode: 8 })).toBe(writing);
  expect(await status({ opcode: 0 })).toBe('02/80');
});

test('what is wrong with a command is found before the backend is asked', async () => {
  expect(await status({ opcode: READ, cdw10: SIZE / 512 })).toBe('00/80 DNR');
  expect(await status({ opcode: WRITE, cdw12: 256 })).toBe('00/02 DNR');
  expect(await status({ opcode: READ, prp1: Address.data + 1 })).toBe('00/13 DNR');
  expect(await status({ opcode: WRITE, prp1: 0x4000_0000 })).toBe('00/04');
  expect(backend.calls).toEqual([]);
});

test('a namespace has no smaller blocks than its backend', () => {
  const coarse = Object.assign(new GatedBackend(), { blockSize: 4096 });
  expect(() => new Host({ backend: coarse })).toThrow(
    'The backend takes blocks of at least 4096 bytes, and those of the namespace have 512',
  );
  new Host({ backend: coarse, blockSize: 4096 }).close();
});
