// SPDX-License-Identifier: MIT
/** A namespace that changes its size while the controller is at work. */
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createBackend, customBackend } from '../../../lib/nvme/backends';
import { type Command, decodeIdentifyNamespace } from '../../../lib/nvme/spec';
import { MIB, SlowBackend, askForNotices, changedNamespaces, identified } from './namespace-support';
import { Address, turns, until } from './support';
import { useHost } from './use-host';

const READ = 2;
const WRITE = 1;
const FLUSH = 0;
const FAR = 0x100_0000;
const aer: Command = { opcode: 0x0c };

const t = useHost();

function data(length: number): Uint8Array {
  return t.host.memory.bytes(Address.data, length);
}

test('grows, and the host is told', async () => {
  await askForNotices(t.host);
  const cid = t.host.push(t.host.admin, aer);
  t.host.ring(t.host.admin);
  await turns();
  data(512).fill(0x77);
  expect(await t.status({ opcode: WRITE, cdw10: 32767 })).toBe('00/00');
  expect(await t.status({ opcode: READ, cdw10: 32768 })).toBe('00/80 DNR');
  const info = await t.host.controller.resizeNamespace(1, 17 * MIB);
  expect(info).toMatchObject({ nsid: 1, size: 17 * MIB });
  expect(await t.host.completion(t.host.admin)).toMatchObject({ cid, dw0: 0x0004_0002 });
  expect(await changedNamespaces(t.host)).toEqual([1]);
  expect(decodeIdentifyNamespace(await identified(t.host, 0, 1)).nsze).toBe(17 * 2048);
  data(1024).fill(0xff);
  expect(await t.status({ opcode: READ, cdw10: 32767, cdw12: 1 })).toBe('00/00');
  expect(data(1024)).toEqual(Uint8Array.from({ length: 1024 }, (_, i) => (i < 512 ? 0x77 : 0)));
});

test('shrinks: what is behind the end fails, and is zeros when it grows again', async () => {
  data(512).fill(0x77);
  expect(await t.status({ opcode: WRITE, cdw10: 32767 })).toBe('00/00');
  await t.host.controller.resizeNamespace(1, 1024);
  expect(await t.status({ opcode: READ, cdw10: 2 })).toBe('00/80 DNR');
  expect(await t.status({ opcode: READ, cdw10: 1 })).toBe('00/00');
  await t.host.controller.resizeNamespace(1, 16 * MIB);
  expect(await t.status({ opcode: READ, cdw10: 32767 })).toBe('00/00');
  expect(data(512).every((byte) => byte === 0)).toBe(true);
});

test('commands that run end before the backend shrinks', async () => {
  let open = (): void => undefined;
  t.host.memory.gate = new Promise((resolve) => (open = resolve));
  t.host.memory.add(FAR, 0x1_0000, { distant: true });
  const write = t.host.push(t.queue, { opcode: WRITE, nsid: 1, prp1: FAR, cdw10: 32767 });
  t.host.ring(t.queue);
  await until(() => t.host.memory.messages.length === 1);
  let resized = false;
  const resizing = t.host.controller.resizeNamespace(1, MIB).then(() => (resized = true));
  expect(await t.status({ opcode: READ, cdw10: 32767 })).toBe('00/80 DNR');
  expect(resized).toBe(false);
  open();
  expect(await t.host.completion(t.queue)).toMatchObject({ cid: write, status: '00/00' });
  await resizing;
});

test('the size of the storage is taken over', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'vfio-user-test-')), 'disk');
  writeFileSync(path, new Uint8Array(8192));
  t.host.controller.addNamespace({ backend: createBackend({ kind: 'file', path }) });
  expect(await t.status({ opcode: READ, nsid: 2, cdw10: 16 })).toBe('00/80 DNR');
  truncateSync(path, 16384 + 100);
  expect(await t.host.controller.resizeNamespace(2)).toMatchObject({ size: 16384 });
  expect(await t.status({ opcode: READ, nsid: 2, cdw10: 31 })).toBe('00/00');
  // What is cut off stays in the file.
  await t.host.controller.resizeNamespace(2, 512);
  expect(statSync(path).size).toBe(16384 + 100);
  expect(await t.status({ opcode: READ, nsid: 2, cdw10: 1 })).toBe('00/80 DNR');
  await t.host.controller.resizeNamespace(2, 32768);
  expect(statSync(path).size).toBe(32768);
  rmSync(dirname(path), { recursive: true });
});

test('the storage tells its new size: the host is told, and what is behind the end fails', async () => {
  let changed = (): void => undefined;
  const own = {
    size: 8192,
    read: () => undefined,
    write: () => undefined,
    onSizeChange: (call: () => void) => (changed = call),
  };
  t.host.controller.addNamespace({ backend: customBackend(own) });
  await askForNotices(t.host);
  const cid = t.host.push(t.host.admin, aer);
  t.host.ring(t.host.admin);
  own.size = 4096 + 100;
  changed();
  expect(await t.status({ opcode: READ, nsid: 2, cdw10: 8 })).toBe('00/80 DNR');
  expect(await t.status({ opcode: READ, nsid: 2, cdw10: 7 })).toBe('00/00');
  expect(await t.host.completion(t.host.admin)).toMatchObject({ cid, dw0: 0x0004_0002 });
  expect(t.host.controller.namespaces[1]).toMatchObject({ size: 4096 });
  own.size = 16384;
  changed();
  await until(() => t.host.controller.namespaces[1]?.size === 16384);
  expect(await t.status({ opcode: READ, nsid: 2, cdw10: 31 })).toBe('00/00');
  // It is nobody's any more.
  await t.host.controller.removeNamespace(2);
  changed();
});

test.each([0, 511, 1000, 2 ** 60, NaN])('to %d bytes is refused', async (size) => {
  await expect(t.host.controller.resizeNamespace(1, size)).rejects.toThrow(
    `The size of namespace 1 is a multiple of 512 bytes, got ${size}`,
  );
  expect(t.host.controller.namespaces[0]?.size).toBe(16 * MIB);
});

test('a backend that cannot do it, or fails', async () => {
  const fixed = createBackend({ kind: 'null', size: MIB });
  Object.assign(fixed, { resize: undefined });
  t.host.controller.addNamespace({ backend: fixed });
  await expect(t.host.controller.resizeNamespace(2, 512)).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_UNSUPPORTED',
    message: 'The size of namespace 2 cannot be changed: its null backend has no resize',
  });
  const failing = createBackend({ kind: 'null', size: MIB });
  Object.assign(failing, { resize: () => Promise.reject(new Error('disk')) });
  t.host.controller.addNamespace({ backend: failing });
  await expect(t.host.controller.resizeNamespace(3, 512)).rejects.toThrow('disk');
  expect(t.host.controller.namespaces.map(({ size }) => size)).toEqual([16 * MIB, MIB, MIB]);
  await expect(t.host.controller.resizeNamespace(4)).rejects.toThrow('There is no namespace 4');
});

test('a namespace that goes meanwhile', async () => {
  const backend = new SlowBackend(MIB);
  t.host.controller.addNamespace({ backend });
  let flushed = (): void => undefined;
  backend.gate = new Promise((resolve) => (flushed = resolve));
  t.host.push(t.queue, { opcode: FLUSH, nsid: 2 });
  t.host.ring(t.queue);
  await until(() => backend.flushes === 1);
  const resizing = t.host.controller.resizeNamespace(2, 512);
  await turns();
  const removal = t.host.controller.removeNamespace(2);
  flushed();
  await expect(resizing).rejects.toThrow('There is no namespace 2');
  await removal;
});
