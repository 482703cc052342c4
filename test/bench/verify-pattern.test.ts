// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { checkBlock, describeBlock, fillBlock, MIN_BLOCK_WORDS } from '../../lib/bench/verify-pattern';

const WORDS = 128;
const LBA = 5 * 2 ** 32 + 7;
const SEED = 0xdeadbeef;

function block(lba = LBA, generation = 3, seed = SEED): Uint32Array {
  const words = new Uint32Array(WORDS);
  fillBlock(words, 0, WORDS, { lba, generation, seed });
  return words;
}

const check = (words: Uint32Array): string =>
  checkBlock(words, 0, WORDS, { lba: LBA, generation: 3, seed: SEED });
const describeIt = (words: Uint32Array): string =>
  describeBlock(words, 0, WORDS, { lba: LBA, generation: 3, seed: SEED });

test('the header names the block', () => {
  const words = block();
  // "VFUB" in memory, LBA low and high, generation, seed.
  expect([...words.subarray(0, 5)]).toEqual([0x42554656, 7, 5, 3, 0xdeadbeef]);
  expect(Buffer.from(words.buffer).toString('latin1', 0, 4)).toBe('VFUB');
});

test('blocks differ in every word of their content', () => {
  const first = block(LBA, 3);
  for (const other of [block(LBA, 4), block(LBA + 1), block(LBA, 3, SEED + 1), block(LBA + 2 ** 32)]) {
    expect(first.subarray(5).every((word, index) => word !== other[index + 5])).toBe(true);
  }
  expect(new Set(first.subarray(6)).size).toBe(WORDS - 6);
});

test('what was written is ok, for any place, pass, seed and size', () => {
  const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
  fc.assert(
    fc.property(
      fc.maxSafeNat(),
      u32,
      u32,
      fc.integer({ min: MIN_BLOCK_WORDS, max: 300 }),
      fc.nat({ max: 50 }),
      (lba, generation, seed, size, offset) => {
        const words = new Uint32Array(offset + size + 1).fill(0x55555555);
        const identity = { lba, generation, seed };
        fillBlock(words, offset, size, identity);
        expect(checkBlock(words, offset, size, identity)).toBe('ok');
        expect(words.subarray(0, offset).every((word) => word === 0x55555555)).toBe(true);
        expect(words[offset + size]).toBe(0x55555555);
      },
    ),
  );
});

test('no flipped bit goes unnoticed', () => {
  fc.assert(
    fc.property(fc.nat({ max: WORDS * 32 - 1 }), (bit) => {
      const words = block();
      const at = bit >>> 5;
      words[at] = (words[at] as number) ^ (1 << (bit & 31));
      expect(check(words)).toBe('corrupt');
      const offset = Math.floor(bit / 8);
      expect(describeIt(words)).toContain(`first bad byte at offset ${offset} of 512;`);
    }),
  );
});

test('the block of another LBA is misdirected, in whichever half of the number it differs', () => {
  expect(check(block(LBA + 1))).toBe('misdirected');
  expect(check(block(LBA + 2 ** 32))).toBe('misdirected');
  expect(check(block(LBA - 1, 2, 1))).toBe('misdirected');
  expect(describeIt(block(8, 2))).toBe(
    'LBA 21474836487: misdirected: holds the block of LBA 8, written in pass 2',
  );
});

test('the block of an earlier pass or run is stale', () => {
  expect(check(block(LBA, 2))).toBe('stale');
  expect(describeIt(block(LBA, 2))).toBe(
    'LBA 21474836487: stale: expected pass 3, found pass 2; a write was lost',
  );
  expect(check(block(LBA, 3, 1))).toBe('stale');
  expect(describeIt(block(LBA, 3, 1))).toBe(
    'LBA 21474836487: stale: expected seed 0xdeadbeef, found seed 0x00000001: the data of another run',
  );
});

test('a block torn between two passes is corrupt, and the text says where it tore', () => {
  const words = block();
  words.set(block(LBA, 2).subarray(64), 64);
  expect(check(words)).toBe('corrupt');
  expect(describeIt(words)).toMatch(
    /first bad byte at offset 25\d of 512; word 64 .*; torn: from there on it is the data of pass 2$/,
  );
});

test('a new header over old content is corrupt, also when the header is that of another block', () => {
  const words = block(LBA, 2);
  words.set(block(LBA, 4).subarray(0, 6));
  expect(check(words)).toBe('corrupt');
  expect(describeIt(words)).toContain(
    'first bad byte at offset 12 of 512; word 3 is 0x00000004, expected 0x00000003',
  );
  expect(describeIt(words)).not.toContain('torn');
});

test('bytes that follow no pattern are not called torn', () => {
  const words = block();
  words.fill(0xffffffff, 100);
  expect(describeIt(words)).not.toContain('torn');
  expect(describeIt(words)).toMatch(/word 100 is 0xffffffff, expected 0x[\da-f]{8}$/);
  const foreign = block();
  foreign.set(block(LBA + 9).subarray(64), 64);
  expect(describeIt(foreign)).not.toContain('torn');
});

test('zeros are told as such', () => {
  expect(check(new Uint32Array(WORDS))).toBe('corrupt');
  expect(describeIt(new Uint32Array(WORDS))).toBe('LBA 21474836487: corrupt: all 512 bytes are zero');
});

test('a good block is described as such', () => {
  expect(describeIt(block())).toBe('LBA 21474836487: as written');
});

test.each([
  { offset: 1, size: WORDS },
  { offset: -1, size: WORDS },
  { offset: 0, size: MIN_BLOCK_WORDS - 1 },
  { offset: NaN, size: WORDS },
])('a block of $size words at $offset that does not fit is refused', ({ offset, size }) => {
  const words = new Uint32Array(WORDS);
  const code = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });
  expect(() => {
    fillBlock(words, offset, size, { lba: 0, generation: 0, seed: 0 });
  }).toThrow(code);
  expect(() => checkBlock(words, offset, size, { lba: 0, generation: 0, seed: 0 })).toThrow(code);
  expect(() => describeBlock(words, offset, size, { lba: 0, generation: 0, seed: 0 })).toThrow(code);
});
