// SPDX-License-Identifier: MIT
import { ConfigSpace, type ConfigSpaceDeclaration } from '../../lib/pci';

const plain = { vendorId: 0x1234, deviceId: 1, classCode: 0xff0000 };
const table = { bar: 0, offset: 0 };

/** As a JavaScript caller does, whom no compiler stops. */
const declare = (more: object): (() => ConfigSpace) => {
  const declaration = { ...plain, ...more } as ConfigSpaceDeclaration;
  return () => new ConfigSpace(declaration);
};
const refusal = (message: RegExp): Error =>
  expect.objectContaining({
    name: 'TypeError',
    code: 'ERR_INVALID_ARG_VALUE',
    message: expect.stringMatching(message) as string,
  }) as Error;

test.each<[object, RegExp]>([
  [{ revisionID: 2 }, /^configuration space: unknown key "revisionID"; known are vendorId, .*revisionId/],
  [
    { classCode: undefined },
    /^configuration space: the key "classCode" is missing; known are vendorId, deviceId/,
  ],
  [{ bars: 5 }, /^bars: 5 is no object/],
  [{ bars: { bar0: {} } }, /^bars: unknown key "bar0"; known are 0, 1, 2, 3, 4, 5$/],
  [{ bars: { 6: {} } }, /^bars: unknown key "6"/],
  [{ bars: { 0: null } }, /^BAR 0: null is no object/],
  [{ bars: { 1: { size: 16 } } }, /^BAR 1: kind is undefined; it is one of "memory32", "memory64", "io"$/],
  [{ bars: { 1: { type: 'io', size: 16 } } }, /^BAR 1: kind is undefined/],
  [{ bars: { 1: { kind: 'toString', size: 16 } } }, /^BAR 1: kind is 'toString'/],
  [{ bars: { 1: { kind: 'io' } } }, /^BAR 1, kind 'io': the key "size" is missing; known are kind, size$/],
  [
    { bars: { 1: { kind: 'io', size: 16, prefetchable: true } } },
    /^BAR 1, kind 'io': unknown key "prefetchable"/,
  ],
  [
    { capabilities: [{ kind: 'pm' }] },
    /^capability 0: kind is 'pm'; it is one of "power-management", "express", /,
  ],
  [
    { capabilities: [{ kind: 'express', flr: true }] },
    /^capability 0, kind 'express': unknown key "flr"; known are kind, functionLevelReset/,
  ],
  [
    { capabilities: [{ kind: 'express' }, { kind: 'msi' }] },
    /^capability 1, kind 'msi': the key "vectors" is missing/,
  ],
  [
    { capabilities: [{ kind: 'msix', vectors: 1, table }] },
    /^capability 0, kind 'msix': the key "pba" is missing/,
  ],
  [
    { capabilities: [{ kind: 'msix', vectors: 1, table, pba: { BAR: 0, offset: 8 } }] },
    /^capability 0, pba: unknown key "BAR"; known are bar, offset/,
  ],
  [{ capabilities: [{ kind: 'vendor', data: [1, 2] }] }, /no Uint8Array/],
])('%j is refused', (more, message) => {
  expect(declare(more)).toThrow(refusal(message));
});

test('what is undefined is absent', () => {
  const bars = { 0: { kind: 'io', size: 16 }, 1: undefined };
  const config = declare({ bars, capabilities: undefined, size: undefined })().read(0, 4096);
  expect([...config.subarray(0x10, 0x18)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
});
