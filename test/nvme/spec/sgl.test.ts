// SPDX-License-Identifier: MIT
import {
  GenericStatus,
  MAX_SGL_DESCRIPTORS,
  storeSglDataBlock,
  takesSgl,
  walkSgl,
} from '../../../lib/nvme/spec';

/** Little-endian words of hexadecimal bytes, as the specification draws them. */
function words(...lines: string[]): Uint32Array {
  const bytes = Uint8Array.from(lines.join(' ').split(' '), (byte) => parseInt(byte, 16));
  return new Uint32Array(bytes.buffer);
}

/** A descriptor: address in words 0 and 1, length in word 2, SGL identifier in the last byte. */
function descriptor(identifier: number, address: number, length: number): number[] {
  return [address >>> 0, Math.floor(address / 2 ** 32), length, (identifier << 24) >>> 0];
}

interface Walk {
  readonly status: number;
  readonly blocks: readonly (readonly [number, number])[];
  readonly read: readonly number[];
}

/** Walks from the descriptor in a command; `memory` has the segments by address. */
function walk(
  first: ArrayLike<number>,
  length: number,
  memory: Record<number, ArrayLike<number>> = {},
): Walk {
  const blocks: [number, number][] = [];
  const read: number[] = [];
  const [low = 0, high = 0, size = 0, last = 0] = Array.from(first);
  const status = walkSgl(
    high * 2 ** 32 + low,
    size,
    last,
    length,
    (address, count) => {
      read.push(address);
      const segment = memory[address];
      return segment === undefined ? undefined : Uint32Array.from(segment).subarray(0, count);
    },
    (address, bytes) => blocks.push([address, bytes]),
  );
  return { status, blocks, read };
}

const {
  success,
  sglTypeInvalid,
  dataSglLengthInvalid,
  invalidSglSegment,
  invalidSglCount,
  dataTransferError,
} = GenericStatus;

describe('the data block descriptor', () => {
  // NVMe base 2.0, 4.1.2.1, SGL Data Block descriptor: address 7:0, length 11:8, reserved 14:12, SGL identifier 15.
  const golden = words('00 72 56 34 12 00 00 00 00 00 02 00 00 00 00 00');

  test('as it is stored: 128 KiB at 12_3456_7200h', () => {
    const entry = new Uint32Array(8).fill(0xffff_ffff);
    storeSglDataBlock(entry, 2, 0x12_3456_7200, 131072);
    expect([...entry]).toEqual([0xffff_ffff, 0xffff_ffff, ...golden, 0xffff_ffff, 0xffff_ffff]);
  });

  test('as it is read', () => {
    expect(walk(golden, 131072)).toEqual({ status: success, blocks: [[0x12_3456_7200, 131072]], read: [] });
  });

  test.each([131071, 131073, 1])('data of %s bytes is not what it describes', (length) => {
    expect(walk(golden, length)).toEqual({ status: dataSglLengthInvalid, blocks: [], read: [] });
  });

  test('the largest length is no negative one', () => {
    expect(walk(descriptor(0, 0x1000, 0xffff_ffff), 0xffff_ffff).blocks).toEqual([[0x1000, 0xffff_ffff]]);
    expect(walk(descriptor(0, 0x1000, 0xffff_ffff), 4096).status).toBe(dataSglLengthInvalid);
  });

  test.each([2 ** 53, 2 ** 64 - 2048, Number.MAX_SAFE_INTEGER - 100])('an address of %s', (address) => {
    const high = Math.floor(address / 2 ** 32);
    const low = address - high * 2 ** 32;
    expect(walk([low, high, 4096, 0], 4096)).toMatchObject({ status: dataTransferError, blocks: [] });
  });

  test('reserved bytes are not looked at', () => {
    expect(walk([0x1000, 0, 512, 0x00ff_ffff], 512).status).toBe(success);
  });
});

test.each([
  ['bit bucket', 0x10],
  ['keyed data block', 0x40],
  ['transport data block', 0x50],
  ['vendor specific', 0xf0],
  ['data block, offset', 0x01],
  ['segment, offset', 0x21],
  ['last segment, offset', 0x31],
  ['data block, transport specific', 0x0a],
  ['the highest', 0xff],
])('a type that is not supported: %s', (_, identifier) => {
  expect(walk(descriptor(identifier, 0x1000, 512), 512)).toEqual({
    status: sglTypeInvalid,
    blocks: [],
    read: [],
  });
  const memory = { 0x8000: [...descriptor(0, 0x1000, 256), ...descriptor(identifier, 0x2000, 256)] };
  expect(walk(descriptor(0x30, 0x8000, 32), 512, memory).status).toBe(sglTypeInvalid);
});

describe('segments', () => {
  test('a last segment of three blocks', () => {
    // Identifier 30h: SGL Last Segment descriptor, 48 bytes at 8008h.
    const first = words('08 80 00 00 00 00 00 00 30 00 00 00 00 00 00 30');
    const segment = words(
      '00 10 00 00 00 00 00 00 00 02 00 00 00 00 00 00',
      '03 00 00 00 01 00 00 00 ff 01 00 00 00 00 00 00',
      '00 30 00 00 00 00 00 00 01 10 00 00 00 00 00 00',
    );
    expect(walk(first, 0x1400, { 0x8008: segment })).toEqual({
      status: success,
      blocks: [
        [0x1000, 0x200],
        [0x1_0000_0003, 0x1ff],
        [0x3000, 0x1001],
      ],
      read: [0x8008],
    });
  });

  test('segments in a chain, and blocks of no bytes', () => {
    const memory = {
      0x8000: [...descriptor(0, 0x1000, 100), ...descriptor(0x20, 0x9000, 32)],
      0x9000: [...descriptor(0, 0x5000, 0), ...descriptor(0x30, 0xa000, 16)],
      0xa000: descriptor(0, 0x2000, 156),
    };
    expect(walk(descriptor(0x20, 0x8000, 32), 256, memory)).toEqual({
      status: success,
      blocks: [
        [0x1000, 100],
        [0x2000, 156],
      ],
      read: [0x8000, 0x9000, 0xa000],
    });
  });

  test('too few bytes, and too many', () => {
    const memory = { 0x8000: [...descriptor(0, 0x1000, 256), ...descriptor(0, 0x2000, 256)] };
    expect(walk(descriptor(0x30, 0x8000, 32), 513, memory).status).toBe(dataSglLengthInvalid);
    expect(walk(descriptor(0x30, 0x8000, 32), 511, memory)).toMatchObject({
      status: dataSglLengthInvalid,
      blocks: [[0x1000, 256]],
    });
    expect(walk(descriptor(0x30, 0x8000, 32), 512, memory).status).toBe(success);
  });

  test.each([
    ['no length', descriptor(0x30, 0x8000, 0), invalidSglSegment],
    ['a length that is no multiple of 16', descriptor(0x30, 0x8000, 24), invalidSglSegment],
    ['an address that is no multiple of 8', descriptor(0x30, 0x8004, 16), invalidSglSegment],
    ['memory that is not there', descriptor(0x20, 0x7000, 16), dataTransferError],
    ['an address of 2^53', descriptor(0x20, 2 ** 53, 16), dataTransferError],
    [
      'more descriptors than anybody sends',
      descriptor(0x30, 0x8000, 16 * (MAX_SGL_DESCRIPTORS + 1)),
      invalidSglCount,
    ],
    ['as long as can be', descriptor(0x30, 0x8000, 0xffff_fff0), invalidSglCount],
  ])('a segment with %s', (_, first, status) => {
    expect(walk(first, 512, { 0x8000: descriptor(0, 0x1000, 512) })).toMatchObject({ status, blocks: [] });
  });

  test('memory that gives less than it was asked for', () => {
    const memory = { 0x8000: descriptor(0, 0x1000, 512) };
    expect(walk(descriptor(0x30, 0x8000, 32), 512, memory).status).toBe(dataTransferError);
  });

  test('a last segment that is not the last', () => {
    const memory = { 0x8000: [...descriptor(0, 0x1000, 256), ...descriptor(0x30, 0x9000, 16)] };
    expect(walk(descriptor(0x30, 0x8000, 32), 512, memory)).toMatchObject({
      status: invalidSglSegment,
      read: [0x8000],
    });
  });

  test('a segment descriptor that is not at the end', () => {
    const memory = { 0x8000: [...descriptor(0x30, 0x9000, 16), ...descriptor(0, 0x1000, 256)] };
    expect(walk(descriptor(0x20, 0x8000, 32), 512, memory)).toMatchObject({
      status: invalidSglCount,
      read: [0x8000],
    });
  });

  test('rings come to an end', () => {
    const own = { 0x8000: descriptor(0x20, 0x8000, 16) };
    const alone = walk(descriptor(0x20, 0x8000, 16), 512, own);
    expect(alone.status).toBe(invalidSglCount);
    expect(alone.read).toHaveLength(MAX_SGL_DESCRIPTORS);
    const two = {
      0x8000: [...descriptor(0, 0x1000, 0), ...descriptor(0x20, 0x9000, 32)],
      0x9000: [...descriptor(0, 0x1000, 0), ...descriptor(0x20, 0x8000, 32)],
    };
    expect(walk(descriptor(0x20, 0x8000, 32), 512, two)).toMatchObject({
      status: invalidSglCount,
      blocks: [],
    });
  });
});

test('what SGLS tells: 0 none, 1 any alignment, 2 multiples of 4; higher bits are of other things', () => {
  expect([0, 1, 2, 3, 0x10_0000, 0x10_0001, 0xffff_fffe].map(takesSgl)).toEqual([
    false,
    true,
    true,
    false,
    false,
    true,
    true,
  ]);
});
