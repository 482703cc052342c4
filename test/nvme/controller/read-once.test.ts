// SPDX-License-Identifier: MIT
/** A host can change a command while it is executed. */
import { createBackend } from '../../../lib/nvme/backends';
import { ClientView } from '../../../lib/nvme/controller/client-view';
import { IoCommands } from '../../../lib/nvme/controller/io-commands';
import { resolveOptions } from '../../../lib/nvme/controller/options';
import { NamespaceSet } from '../../../lib/nvme/controller/namespace-set';
import { newCounters } from '../../../lib/nvme/controller/statistics';
import { encodeCommand } from '../../../lib/nvme/spec';
import { FakeMemory } from './support';

const MEMORY = 0x10_0000;
const LIST = 0x8000;

/** Words that tell how often each was read, and that change as soon as it was. */
function restless(words: Int32Array): { words: Int32Array; reads: Map<number, number> } {
  const reads = new Map<number, number>();
  const handler: ProxyHandler<Int32Array> = {
    get: (target, key) => {
      const index = Number(key);
      const count = reads.get(index) ?? 0;
      reads.set(index, count + 1);
      return count === 0 ? target[index] : 0x7fff_ffff;
    },
  };
  return { words: new Proxy(words, handler), reads };
}

test.each([
  ['read of one page', { opcode: 2, prp1: MEMORY, cdw12: 7 }],
  ['read of two pages', { opcode: 2, prp1: MEMORY + 0x200, prp2: MEMORY + 0x2000, cdw12: 7 }],
  ['write with a list', { opcode: 1, prp1: MEMORY, prp2: MEMORY + LIST, cdw12: 23 }],
  ['compare', { opcode: 5, prp1: MEMORY, cdw12: 7 }],
  ['flush', { opcode: 0 }],
  ['write zeroes', { opcode: 8, cdw12: 7 }],
])('each word of a command is read once: %s', (_name, command) => {
  const memory = new FakeMemory();
  memory.add(MEMORY, 0x10_0000);
  memory.words(MEMORY + LIST, 4).set([MEMORY + 0x3000, 0, MEMORY + 0x4000, 0]);
  const view = new ClientView();
  view.attach(memory);
  const backend = createBackend({ kind: 'memory', size: 1 << 20 });
  const onWarning = (): void => undefined;
  const commands = new IoCommands({
    namespaces: new NamespaceSet(resolveOptions({ maxNamespaces: 1, serial: 'TEST', backend })),
    maxTransfer: 131072,
    view,
    features: { writeThrough: false },
    counters: newCounters(),
    onWarning,
  });
  const plain = new Uint32Array(16);
  encodeCommand(plain, 0, { nsid: 1, ...command });
  const { words, reads } = restless(new Int32Array(plain.buffer));
  expect(commands.execute(words, 0)).toBe(0);
  expect([...reads.values()].every((count) => count === 1)).toBe(true);
  expect(reads.size).toBeGreaterThan(1);
});
