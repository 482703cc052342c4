// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  AdminOpcode,
  type Command,
  NvmOpcode,
  adminOpcodeName,
  createCompletionQueueCdw11,
  createQueueCdw10,
  decodeCommand,
  decodeLogPageRequest,
  decodeStatus,
  encodeCommand,
  encodeDatasetRanges,
  encodeLogPageRequest,
  encodeStatus,
  nvmOpcodeName,
  statusText,
} from '../../../lib/nvme/spec';

const outOfRange = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });

// struct spdk_nvme_cmd (spdk include/spdk/nvme_spec.h): a read of 8 blocks at block 100000010h.
const readWords = [
  0x00070002, 1, 0, 0, 0, 0, 0x00201000, 0x38, 0x00300000, 0, 0x00000010, 0x1, 0x40000007, 0, 0, 0,
];
const read: Command = {
  opcode: NvmOpcode.read,
  cid: 7,
  nsid: 1,
  prp1: 0x3800201000,
  prp2: 0x300000,
  cdw10: 0x10,
  cdw11: 1,
  // FUA, and 8 blocks.
  cdw12: 0x40000007,
};

test('a command takes its words', () => {
  const words = new Uint32Array(48).fill(0xffffffff);
  encodeCommand(words, 16, read);
  expect([...words.subarray(16, 32)]).toEqual(readWords);
  expect(words[15]).toBe(0xffffffff);
  expect(words[32]).toBe(0xffffffff);
  expect(decodeCommand(words, 16)).toMatchObject({ ...read, fuse: 0, psdt: 0, metadata: 0 });
});

test('a command that does not fit is refused, and leaves the queue alone', () => {
  const words = new Uint32Array(16);
  for (const wrong of [
    { opcode: 256 },
    { opcode: 2, cid: 65536 },
    { opcode: 2, prp2: 2 ** 53 },
    { opcode: 2, nsid: -1 },
  ]) {
    expect(() => {
      encodeCommand(words, 0, wrong);
    }).toThrow(outOfRange);
  }
  expect(() => {
    encodeCommand(words, 1, read);
  }).toThrow(outOfRange);
  expect(() => decodeCommand(words, -1)).toThrow(outOfRange);
  expect(words.every((word) => word === 0)).toBe(true);
});

test('an address of 2^53 or more stays there', () => {
  const words = new Uint32Array(16).fill(0xffffffff);
  expect(decodeCommand(words, 0).prp1).toBeGreaterThanOrEqual(2 ** 53);
});

test('commands round-trip', () => {
  const word = fc.integer({ min: 0, max: 0xffffffff });
  const address = fc.maxSafeNat();
  const command = fc.record({
    opcode: fc.nat(255),
    fuse: fc.nat(3),
    psdt: fc.nat(3),
    cid: fc.nat(0xffff),
    nsid: word,
    cdw2: word,
    cdw3: word,
    metadata: address,
    prp1: address,
    prp2: address,
    cdw10: word,
    cdw11: word,
    cdw12: word,
    cdw13: word,
    cdw14: word,
    cdw15: word,
  });
  fc.assert(
    fc.property(command, (value) => {
      const words = new Uint32Array(16);
      encodeCommand(words, 0, value);
      expect(decodeCommand(words, 0)).toEqual(value);
    }),
  );
});

test('status fields', () => {
  expect(encodeStatus({ sct: 0, sc: 0x80, doNotRetry: true })).toBe(0x4080);
  expect(decodeStatus(0x7a85)).toEqual({ sct: 2, sc: 0x85, crd: 3, more: true, doNotRetry: true });
  expect(statusText(0, 0)).toBe('Successful completion (00/00)');
  expect(statusText(1, 2)).toBe('Invalid queue size (01/02)');
  expect(statusText(2, 0x85)).toBe('Compare failure (02/85)');
  expect(statusText(3, 0x70)).toBe('Host pathing error (03/70)');
  expect(statusText(5, 1)).toBe('Unknown status (05/01)');
  expect(statusText(7, 0xc3)).toBe('Vendor specific status (07/c3)');
});

test('opcodes have names', () => {
  expect(adminOpcodeName(AdminOpcode.createIoSubmissionQueue)).toBe('Create I/O Submission Queue');
  expect(adminOpcodeName(0x80)).toBe('Format NVM');
  expect(adminOpcodeName(0x1d)).toBe('NVMe MI Send');
  expect(adminOpcodeName(0xc1)).toBe('Opcode C1h');
  expect(nvmOpcodeName(0x08)).toBe('Write Zeroes');
  expect(nvmOpcodeName(0x7f)).toBe('Opcode 7Fh');
});

test('queue creation as Linux sends it', () => {
  expect(createCompletionQueueCdw11.encode({ contiguous: true, interrupts: true, vector: 1 })).toBe(0x10003);
  expect(createQueueCdw10.decode(0x00ff0001)).toEqual({ queueId: 1, entries: 256 });
});

test('log page requests', () => {
  const position = { length: 0x40004, offset: 0x1_0000_0004 };
  const request = { page: 2, specific: 0x7f, specificId: 0x1234, retainEvent: true, ...position };
  expect(encodeLogPageRequest(request)).toEqual([0x0000ff02, 0x12340001, 4, 1]);
  expect(decodeLogPageRequest(0x0000ff02, 0x12340001, 4, 1)).toEqual(request);
  for (const wrong of [
    { length: 0 },
    { length: 6 },
    { length: 2 ** 34 + 4 },
    { offset: 2 },
    { offset: -4 },
  ]) {
    expect(() => encodeLogPageRequest({ ...request, ...wrong })).toThrow(outOfRange);
  }
});

test('dataset ranges', () => {
  const bytes = encodeDatasetRanges([{ blocks: 8, lba: 0x1_0000_0002 }]);
  expect([...bytes]).toEqual([0, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
  expect(() => encodeDatasetRanges([])).toThrow(outOfRange);
  expect(() => encodeDatasetRanges([{ blocks: 2 ** 32, lba: 0 }])).toThrow(outOfRange);
  expect(() => encodeDatasetRanges([{ blocks: 1, lba: -1 }])).toThrow(outOfRange);
});
