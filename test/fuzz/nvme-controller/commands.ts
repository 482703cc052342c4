// SPDX-License-Identifier: MIT
/** Generated NVMe commands: every opcode, data pointers of every shape. */
import { AdminOpcode, NvmOpcode } from '../../../lib/nvme/spec';
import { LAYOUT, LISTS } from './memory';
import type { Random } from '../random';

const PAGE = 4096;
/** Blocks of the namespace that is fuzzed. */
export const NAMESPACE_BLOCKS = 8192;
/** Bytes of a list that is generated at once. */
const LIST_BYTES = 512;
const LIST_COUNT = 16;

/** Ranges that commands may name. */
export type Reach = typeof LAYOUT;
/** All but the queues: data that goes over them makes everything that is completed meaningless. */
export const BESIDE_QUEUES: Reach = LAYOUT.slice(1);

/** A random value, or 0 where it is an address of the queues and those are out of reach. */
function besideQueues(reach: Reach, value: number): number {
  const { iova, size } = LAYOUT[0] as Reach[number];
  return reach === BESIDE_QUEUES && value >= iova && value < iova + size ? 0 : value;
}

/** An address: of data mostly, of a list, at the edge of a range, or of nothing. */
function addressOf(random: Random, reach: Reach): number {
  if (random.once(30)) return besideQueues(reach, Number(random.odd64() & ((1n << 53n) - 1n)));
  if (random.once(8)) {
    const { iova, size } = random.pick(reach);
    return Math.max(0, iova + random.pick([0, size - PAGE, size]) + random.pick([0, 0, 4, 512, -4]));
  }
  const { iova, size } = random.once(4) ? random.pick(reach) : (reach[0] as Reach[number]);
  const page = iova + PAGE * random.below(size / PAGE);
  return random.once(6) ? page + random.pick([4, 8, 512, 1, 4092]) : page;
}

function listAddress(random: Random): number {
  return LISTS + LIST_BYTES * random.below(LIST_COUNT) + (random.once(20) ? random.below(16) : 0);
}

function put64(words: Uint32Array, at: number, value: number): void {
  words[at] = value % 2 ** 32;
  words[at + 1] = Math.floor(value / 2 ** 32);
}

/** An SGL descriptor (NVMe base 2.0, 4.1.2.1): u64 address, u32 length, three bytes, u8 type and subtype. */
function putSgl(random: Random, reach: Reach, words: Uint32Array, at: number): void {
  const type = random.once(12) ? random.below(16) : random.pick([0, 0, 1, 2, 3]);
  const segment = type === 2 || type === 3;
  put64(words, at, segment ? listAddress(random) : addressOf(random, reach));
  words[at + 2] = segment
    ? random.near(16, 32, 512, 8192)
    : random.once(10)
      ? // Where a command takes PRPs, the length is read as an address.
        besideQueues(reach, random.odd32())
      : random.pick([512, 4096, 8192, 1024]);
  words[at + 3] = ((type << 4) | (random.once(20) ? random.below(16) : 0)) << 24;
}

/** The bytes of a list, and where they go: PRP entries or SGL descriptors, which may point back to lists. */
export function generateList(random: Random, reach: Reach): { address: number; bytes: Uint8Array } {
  const words = new Uint32Array(LIST_BYTES / 4);
  if (random.once(2))
    for (let i = 0; i < words.length; i += 2)
      put64(words, i, random.once(12) ? listAddress(random) : addressOf(random, reach) & ~4095);
  else for (let i = 0; i < words.length; i += 4) putSgl(random, reach, words, i);
  return { address: LISTS + LIST_BYTES * random.below(LIST_COUNT), bytes: new Uint8Array(words.buffer) };
}

function putDataPointer(random: Random, reach: Reach, words: Uint32Array): void {
  if (random.once(3)) {
    words[0] = (words[0] as number) | (1 << 14);
    putSgl(random, reach, words, 6);
    return;
  }
  put64(words, 6, addressOf(random, reach));
  put64(words, 8, random.once(2) ? listAddress(random) : addressOf(random, reach));
}

/** An I/O command without its command id. */
export function generateIo(random: Random, reach: Reach): Uint32Array {
  const words = new Uint32Array(16);
  const common = [NvmOpcode.read, NvmOpcode.write, NvmOpcode.read, NvmOpcode.write, NvmOpcode.compare];
  words[0] = random.once(15)
    ? random.u32() & 0xff
    : random.once(3)
      ? random.pick(Object.values(NvmOpcode))
      : random.pick(common);
  if (random.once(40)) words[0] = words[0] | (random.u32() & 0xff00);
  words[1] = random.once(15) ? random.pick([0, 2, 0xffff_ffff, random.odd32()]) : 1;
  putDataPointer(random, reach, words);
  const lba = random.once(12)
    ? Number(random.odd64() & ((1n << 63n) - 1n))
    : random.near(0, NAMESPACE_BLOCKS - 8, NAMESPACE_BLOCKS, random.below(NAMESPACE_BLOCKS));
  put64(words, 10, lba);
  const blocks = random.once(10) ? random.near(0, 255, 256, 65533) : random.pick([0, 0, 1, 7, 7, 15, 63]);
  words[12] = blocks | (random.once(6) ? random.u32() & 0xffff_0000 : 0);
  return words;
}

/** An admin command without its command id. Queues go to the place of their id, see `placeOf`, or anywhere. */
export function generateAdmin(
  random: Random,
  reach: Reach,
  placeOf: (id: number, completion: boolean) => number,
): Uint32Array {
  const words = new Uint32Array(16);
  const opcode = random.once(10) ? random.u32() & 0xff : random.pick(Object.values(AdminOpcode));
  words[0] = opcode;
  if (random.once(40)) words[0] |= random.u32() & 0xff00;
  words[1] = random.once(3) ? random.pick([0, 2, 0xffff_ffff, random.odd32()]) : random.below(2);
  putDataPointer(random, reach, words);
  if (!random.once(8)) words[0] &= 0xffff_3fff;
  const id = random.once(12) ? random.odd32() & 0xffff : random.below(6);
  const entries = random.once(8) ? random.odd32() & 0xffff : random.near(1, 16, 62);
  switch (opcode) {
    case AdminOpcode.createIoCompletionQueue:
    case AdminOpcode.createIoSubmissionQueue: {
      const completion = opcode === AdminOpcode.createIoCompletionQueue;
      put64(words, 6, random.once(20) ? addressOf(random, reach) : placeOf(id, completion));
      words[10] = (entries << 16) | id;
      const target = completion ? random.near(0, 64) : random.once(4) ? random.below(6) : id;
      words[11] = (target << 16) | (random.once(15) ? random.below(8) : completion ? 3 : 1);
      break;
    }
    case AdminOpcode.deleteIoCompletionQueue:
    case AdminOpcode.deleteIoSubmissionQueue:
      words[10] = id;
      break;
    case AdminOpcode.getLogPage:
      words[10] = random.near(0, 4, 18) | (random.near(0, 255, 1023) << 16) | (random.once(4) ? 0x8000 : 0);
      words[12] = random.once(2) ? 0 : random.near(64, 512, 4096);
      words[13] = random.once(15) ? random.odd32() : 0;
      break;
    case AdminOpcode.identify:
      words[10] = random.once(10) ? random.odd32() : random.near(0, 6, 0x13, 0x1c);
      words[11] = random.once(6) ? random.odd32() : 0;
      break;
    case AdminOpcode.setFeatures:
    case AdminOpcode.getFeatures:
      words[10] = random.near(1, 7, 15) | (random.once(6) ? random.u32() & 0x8000_0700 : 0);
      // A keep-alive of less than a second would end most sessions.
      words[11] = random.once(2) ? random.odd32() : random.near(0, 63, 65536);
      break;
    case AdminOpcode.abort:
      words[10] = (random.below(64) << 16) | random.below(4);
      break;
    default:
      words[10] = random.odd32();
      words[11] = random.odd32();
  }
  if (random.once(30)) words[10 + random.below(6)] = random.odd32();
  return words;
}

/** Where a queue of an id goes, so that queues do not overlap: 4 KiB for each. */
export function queuePlace(base: number, id: number, completion: boolean): number {
  return base + 0x1_0000 + (2 * (id % 16) + (completion ? 1 : 0)) * PAGE;
}
