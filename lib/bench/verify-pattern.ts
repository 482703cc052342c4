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
 * Two blocks with different bases differ in every word of the rest, so that a torn write shows at the word where it tore.
 */
const MAGIC = 0x42554656;
const HEADER_WORDS = 6;
const STEP = 0x9e3779b1;
/** How many passes back a torn part is looked for. */
const TORN_PASSES = 64;

/** Size in 32-bit words of the smallest block that can be verified. */
export const MIN_BLOCK_WORDS = 16;

/**
 * What {@link checkBlock} found.
 *
 * - `ok`: the block is what was written.
 * - `misdirected`: an intact block of another LBA.
 * - `stale`: an intact block of this LBA, from another pass or with another seed: a write was lost.
 * - `corrupt`: anything else; a block torn between two passes, flipped bits, foreign data.
 */
export type BlockState = 'ok' | 'misdirected' | 'stale' | 'corrupt';

/**
 * Fills one block with content that names its place and time.
 *
 * @param words memory that holds the block, such as a view of a DMA buffer
 * @param wordOffset where the block begins, in words
 * @param blockWords size of the block in words, at least {@link MIN_BLOCK_WORDS}: 128 for 512 bytes
 * @param lba logical block address, up to 2^53
 * @param generation number of the pass, 32 bits
 * @param seed seed of the run, 32 bits
 * @throws ERR_OUT_OF_RANGE when the block does not lie within `words`
 */
export function fillBlock(
  words: Uint32Array,
  wordOffset: number,
  blockWords: number,
  lba: number,
  generation: number,
  seed: number,
): void {
  checkRange(words, wordOffset, blockWords);
  const high = Math.floor(lba / 2 ** 32);
  const base = hash(lba >>> 0, high, generation, seed);
  words[wordOffset] = MAGIC;
  words[wordOffset + 1] = lba;
  words[wordOffset + 2] = high;
  words[wordOffset + 3] = generation;
  words[wordOffset + 4] = seed;
  words[wordOffset + 5] = checksum(base);
  const end = wordOffset + blockWords;
  let value = patternAt(base, HEADER_WORDS);
  for (let i = wordOffset + HEADER_WORDS; i < end; i++) {
    words[i] = value;
    value = (value + STEP) | 0;
  }
}

/**
 * Compares one block with what {@link fillBlock} wrote for the same arguments. Allocates nothing.
 *
 * @returns see {@link BlockState}; {@link describeBlock} tells more about a block that is not `ok`
 * @throws ERR_OUT_OF_RANGE when the block does not lie within `words`
 */
export function checkBlock(
  words: Uint32Array,
  wordOffset: number,
  blockWords: number,
  lba: number,
  generation: number,
  seed: number,
): BlockState {
  checkRange(words, wordOffset, blockWords);
  if (isIntact(words, wordOffset, blockWords, lba >>> 0, Math.floor(lba / 2 ** 32), generation, seed))
    return 'ok';
  const low = words[wordOffset + 1] as number;
  const high = words[wordOffset + 2] as number;
  const foundGeneration = words[wordOffset + 3] as number;
  const foundSeed = words[wordOffset + 4] as number;
  if (!isIntact(words, wordOffset, blockWords, low, high, foundGeneration, foundSeed)) return 'corrupt';
  return high * 2 ** 32 + low === lba ? 'stale' : 'misdirected';
}

/**
 * One line about a block for which {@link checkBlock} did not return `ok`: what was expected, what was found, and the first byte that differs.
 * Takes the same arguments.
 */
export function describeBlock(
  words: Uint32Array,
  wordOffset: number,
  blockWords: number,
  lba: number,
  generation: number,
  seed: number,
): string {
  const state = checkBlock(words, wordOffset, blockWords, lba, generation, seed);
  const where = `LBA ${String(lba)}`;
  if (state === 'ok') return `${where}: as written`;
  const found = words.subarray(wordOffset, wordOffset + blockWords);
  const word = (index: number): number => found[index] as number;
  const foundLba = word(2) * 2 ** 32 + word(1);
  if (state === 'misdirected') {
    return `${where}: misdirected: holds the block of LBA ${String(foundLba)}, written in pass ${String(word(3))}`;
  }
  if (state === 'stale') {
    return word(4) === seed >>> 0
      ? `${where}: stale: expected pass ${String(generation)}, found pass ${String(word(3))}; a write was lost`
      : `${where}: stale: expected seed ${hex(seed)}, found seed ${hex(word(4))}: the data of another run`;
  }
  if (found.every((value) => value === 0))
    return `${where}: corrupt: all ${String(blockWords * 4)} bytes are zero`;

  const expected = new Uint32Array(blockWords);
  fillBlock(expected, 0, blockWords, lba, generation, seed);
  const bad = found.findIndex((value, index) => value !== expected[index]);
  const difference = (word(bad) ^ (expected[bad] as number)) >>> 0;
  const byte = bad * 4 + Math.floor((31 - Math.clz32(difference & -difference)) / 8);
  const text =
    `${where}: corrupt: first bad byte at offset ${String(byte)} of ${String(blockWords * 4)}; ` +
    `word ${String(bad)} is ${hex(word(bad))}, expected ${hex(expected[bad] as number)}`;
  const torn = tornPass(found, bad, lba, generation, seed);
  return torn === undefined ? text : `${text}; torn: from there on it is the data of pass ${String(torn)}`;
}

/** The earlier pass that wrote everything from a word of the rest to the end of the block. */
function tornPass(
  found: Uint32Array,
  bad: number,
  lba: number,
  generation: number,
  seed: number,
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

function isIntact(
  words: Uint32Array,
  wordOffset: number,
  blockWords: number,
  low: number,
  high: number,
  generation: number,
  seed: number,
): boolean {
  const base = hash(low, high, generation, seed);
  let difference =
    ((words[wordOffset] as number) ^ MAGIC) |
    ((words[wordOffset + 1] as number) ^ low) |
    ((words[wordOffset + 2] as number) ^ high) |
    ((words[wordOffset + 3] as number) ^ generation) |
    ((words[wordOffset + 4] as number) ^ seed) |
    ((words[wordOffset + 5] as number) ^ checksum(base));
  if (difference !== 0) return false;
  const end = wordOffset + blockWords;
  let value = patternAt(base, HEADER_WORDS);
  for (let i = wordOffset + HEADER_WORDS; i < end; i++) {
    difference |= (words[i] as number) ^ value;
    value = (value + STEP) | 0;
  }
  return difference === 0;
}

/** Word of the rest of a block, as a signed 32-bit integer. */
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

function checkRange(words: Uint32Array, wordOffset: number, blockWords: number): void {
  if (!(wordOffset >= 0 && blockWords >= MIN_BLOCK_WORDS && wordOffset + blockWords <= words.length)) {
    throw outOfRange(
      `A block of ${String(blockWords)} words at word ${String(wordOffset)} does not fit: it takes at least ` +
        `${String(MIN_BLOCK_WORDS)} words, and the buffer has ${String(words.length)}`,
    );
  }
}

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
}
