// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';

/*
 * Content of one block, in 32-bit little-endian words:
 *
 *   0  magic "VFUB"          3  generation
 *   1  LBA, low 32 bits      4  seed
 *   2  LBA, high 32 bits     5  checksum of words 1-4
 *   6 …  base + index * STEP, where base is a hash of words 1-4
 *
 * Two blocks with different bases differ in every word after the header, so that a torn write shows at the word where it tore.
 */
const MAGIC = 0x42554656;
const HEADER_WORDS = 6;
const STEP = 0x9e3779b1;
/** How many earlier passes are considered when a torn part is looked for. */
const TORN_PASSES = 64;

/** Size in 32-bit words of the smallest block that can be verified. @internal Exported for its test. */
export const MIN_BLOCK_WORDS = 16;

/** What the content of a block depends on. */
export interface BlockIdentity {
  /** Logical block address, up to 2^53. */
  readonly lba: number;
  /** Number of the pass that wrote the block, 32 bits. */
  readonly generation: number;
  /** Seed of the run, 32 bits. */
  readonly seed: number;
}

/**
 * What {@link checkBlock} found.
 *
 * - `ok`: the block is what was written.
 * - `misdirected`: an intact block of another LBA.
 * - `stale`: an intact block of this LBA, from another pass or with another seed: a write was lost.
 * - `corrupt`: anything else, such as a block torn between two passes, flipped bits, foreign data.
 */
export type BlockState = 'ok' | 'misdirected' | 'stale' | 'corrupt';

/**
 * Fills a block with content that tells which one it is. Allocates nothing.
 *
 * @param words memory that holds the block, such as a view of a DMA buffer
 * @param at where the block begins, in words
 * @param size of the block in words, at least {@link MIN_BLOCK_WORDS}: 128 for 512 bytes
 * @throws ERR_OUT_OF_RANGE when the block does not lie within `words`
 */
export function fillBlock(words: Uint32Array, at: number, size: number, block: BlockIdentity): void {
  checkRange(words, at, size);
  const { lba, generation, seed } = block;
  const high = Math.floor(lba / 2 ** 32);
  const base = hash(lba >>> 0, high, generation, seed);
  words[at] = MAGIC;
  words[at + 1] = lba;
  words[at + 2] = high;
  words[at + 3] = generation;
  words[at + 4] = seed;
  words[at + 5] = checksum(base);
  const end = at + size;
  let value = patternAt(base, HEADER_WORDS);
  for (let i = at + HEADER_WORDS; i < end; i++) {
    words[i] = value;
    value = (value + STEP) | 0;
  }
}

/**
 * Compares a block with what {@link fillBlock} writes for the same arguments. Allocates nothing.
 *
 * @returns see {@link BlockState}; {@link describeBlock} tells more about a block that is not `ok`
 * @throws ERR_OUT_OF_RANGE when the block does not lie within `words`
 */
export function checkBlock(words: Uint32Array, at: number, size: number, block: BlockIdentity): BlockState {
  checkRange(words, at, size);
  const { lba, generation, seed } = block;
  if (isIntact(words, at, size, lba >>> 0, Math.floor(lba / 2 ** 32), generation, seed)) return 'ok';
  const low = words[at + 1] as number;
  const high = words[at + 2] as number;
  if (!isIntact(words, at, size, low, high, words[at + 3] as number, words[at + 4] as number))
    return 'corrupt';
  return high * 2 ** 32 + low === lba ? 'stale' : 'misdirected';
}

/**
 * One line about a block for which {@link checkBlock} did not return `ok`: what was expected, what was found, and the first
 * byte that differs.
 */
export function describeBlock(words: Uint32Array, at: number, size: number, block: BlockIdentity): string {
  const state = checkBlock(words, at, size, block);
  const { lba, generation, seed } = block;
  const where = `LBA ${lba}`;
  if (state === 'ok') return `${where}: as written`;
  const found = words.subarray(at, at + size);
  const word = (index: number): number => found[index] as number;
  if (state === 'misdirected') {
    const foundLba = word(2) * 2 ** 32 + word(1);
    return `${where}: misdirected: holds the block of LBA ${foundLba}, written in pass ${word(3)}`;
  }
  if (state === 'stale') {
    return word(4) === seed >>> 0
      ? `${where}: stale: expected pass ${generation}, found pass ${word(3)}; a write was lost`
      : `${where}: stale: expected seed ${hex(seed)}, found seed ${hex(word(4))}: the data of another run`;
  }
  if (found.every((value) => value === 0)) return `${where}: corrupt: all ${size * 4} bytes are zero`;

  const expected = new Uint32Array(size);
  fillBlock(expected, 0, size, block);
  const bad = found.findIndex((value, index) => value !== expected[index]);
  const difference = (word(bad) ^ (expected[bad] as number)) >>> 0;
  const byte = bad * 4 + Math.floor((31 - Math.clz32(difference & -difference)) / 8);
  const text =
    `${where}: corrupt: first bad byte at offset ${byte} of ${size * 4}; ` +
    `word ${bad} is ${hex(word(bad))}, expected ${hex(expected[bad] as number)}`;
  const torn = tornPass(found, bad, block);
  return torn === undefined ? text : `${text}; torn: from there on it is the data of pass ${torn}`;
}

/** The earlier pass that wrote everything from word `bad` to the end of the block. */
function tornPass(
  found: Uint32Array,
  bad: number,
  { lba, generation, seed }: BlockIdentity,
): number | undefined {
  if (bad < HEADER_WORDS) return undefined;
  const base = ((found[bad] as number) - Math.imul(bad, STEP)) | 0;
  for (let i = bad; i < found.length; i++) if (found[i] !== patternAt(base, i) >>> 0) return undefined;
  const oldest = Math.max(0, generation - TORN_PASSES);
  for (let pass = generation - 1; pass >= oldest; pass--) {
    if (hash(lba >>> 0, Math.floor(lba / 2 ** 32), pass, seed) === base) return pass;
  }
  return undefined;
}

/** Whether the block is what its header, which must have these values, says. */
function isIntact(
  words: Uint32Array,
  at: number,
  size: number,
  low: number,
  high: number,
  generation: number,
  seed: number,
): boolean {
  const base = hash(low, high, generation, seed);
  let difference =
    ((words[at] as number) ^ MAGIC) |
    ((words[at + 1] as number) ^ low) |
    ((words[at + 2] as number) ^ high) |
    ((words[at + 3] as number) ^ generation) |
    ((words[at + 4] as number) ^ seed) |
    ((words[at + 5] as number) ^ checksum(base));
  if (difference !== 0) return false;
  const end = at + size;
  let value = patternAt(base, HEADER_WORDS);
  for (let i = at + HEADER_WORDS; i < end; i++) {
    difference |= (words[i] as number) ^ value;
    value = (value + STEP) | 0;
  }
  return difference === 0;
}

/** A word after the header, as a signed 32-bit integer. */
function patternAt(base: number, index: number): number {
  return (base + Math.imul(index, STEP)) | 0;
}

/** Four words mixed into one with the rounds and the finaliser of MurmurHash3 (public domain). */
function hash(low: number, high: number, generation: number, seed: number): number {
  let h = round(round(round(round(MAGIC, low), high), generation), seed);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function round(h: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  const mixed = h ^ k;
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}

function checksum(base: number): number {
  return Math.imul(base ^ (base >>> 15), 0x2c1b3c6d) ^ MAGIC;
}

function checkRange(words: Uint32Array, at: number, size: number): void {
  if (!(at >= 0 && size >= MIN_BLOCK_WORDS && at + size <= words.length)) {
    throw outOfRange(
      `A block of ${size} words at word ${at} does not fit: it takes at least ` +
        `${MIN_BLOCK_WORDS} words, and the buffer has ${words.length}`,
    );
  }
}

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
}
