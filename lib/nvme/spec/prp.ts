// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../../errors';
import { highWord, joinWords } from './bits';
import { GenericStatus } from './status';
import { SqeWord } from './submission-entry';

/**
 * Physical region pages (NVMe base 2.0, 4.1.1). The first entry may begin inside a page; all others are whole
 * pages, the last of which may be used in part. Two entries lie in the command; when there are more pages, PRP2 is
 * the address of a list of those after the first.
 */

/** Bytes of a PRP list entry. */
const PRP_ENTRY_BYTES = 8;

/** @throws TypeError or RangeError when the arguments do not describe a buffer */
function checkBuffer(address: number, length: number, pageSize: number): void {
  if (!Number.isInteger(pageSize) || pageSize < 4096 || !Number.isInteger(Math.log2(pageSize))) {
    throw invalidArgument(`The page size ${pageSize} is not a power of two from 4096`);
  }
  if (!Number.isSafeInteger(address) || address < 0 || address % 4 !== 0) {
    throw invalidArgument(`The data address ${address} is not a multiple of 4 below 2^53`);
  }
  if (!Number.isSafeInteger(length) || length <= 0 || !Number.isSafeInteger(address + length)) {
    throw outOfRange(`The data length ${length} at ${address} is not positive, or ends above 2^53`);
  }
}

/** Number of list entries that a buffer needs: 0 when PRP1 and PRP2 suffice. Arguments are not checked. */
export function prpListLength(address: number, length: number, pageSize: number): number {
  const pages = Math.ceil(((address % pageSize) + length) / pageSize);
  return pages <= 2 ? 0 : pages - 1;
}

/** PRP1, PRP2 and the list of a buffer. */
export interface Prp {
  readonly prp1: number;
  /** 0 when the first page holds all, the second page, or the address of the list. */
  readonly prp2: number;
  /** Addresses to be stored at the address of the list, 64 bits each. */
  readonly list: readonly number[];
}

/**
 * PRP entries for a buffer whose device addresses are contiguous.
 *
 * @param address device address of the data, a multiple of 4
 * @param length bytes, at least 1
 * @param pageSize CC.MPS in bytes
 * @param listAddress where the list will be, a multiple of 8; only needed when {@link prpListLength} is not 0
 * @throws RangeError when the list would leave its page: lists are not chained, since SPDK does not follow chains
 */
export function buildPrp(address: number, length: number, pageSize: number, listAddress?: number): Prp {
  checkBuffer(address, length, pageSize);
  const count = prpListLength(address, length, pageSize);
  const second = address - (address % pageSize) + pageSize;
  if (count === 0) {
    return { prp1: address, prp2: address + length > second ? second : 0, list: [] };
  }
  if (
    listAddress === undefined ||
    !Number.isSafeInteger(listAddress) ||
    listAddress < 0 ||
    listAddress % 8 !== 0
  ) {
    throw invalidArgument(`The PRP list address ${String(listAddress)} is not a multiple of 8 below 2^53`);
  }
  if ((listAddress % pageSize) + count * PRP_ENTRY_BYTES > pageSize) {
    throw outOfRange(
      `${count} PRP entries at ${listAddress} leave their page: split the transfer, or move the list`,
    );
  }
  return {
    prp1: address,
    prp2: listAddress,
    list: Array.from({ length: count }, (_, i) => second + i * pageSize),
  };
}

/**
 * As {@link buildPrp}, but stores PRP1 and PRP2 into a submission entry and the list into memory, without
 * allocation. Arguments are not checked: the driver's queue pair has checked the buffer, and laid out the lists.
 *
 * @param words memory of the submission queue
 * @param index word at which the entry begins
 * @param list memory of the lists
 * @param listIndex word in `list` at which the list of this command begins
 * @param listAddress device address of that word
 */
export function storePrp(
  words: Uint32Array,
  index: number,
  address: number,
  length: number,
  pageSize: number,
  list: Uint32Array,
  listIndex: number,
  listAddress: number,
): void {
  const second = address - (address % pageSize) + pageSize;
  const end = address + length;
  let prp2 = 0;
  if (end > second + pageSize) {
    prp2 = listAddress;
    let at = listIndex;
    for (let page = second; page < end; page += pageSize) {
      list[at] = page >>> 0;
      list[at + 1] = highWord(page);
      at += 2;
    }
  } else if (end > second) {
    prp2 = second;
  }
  words[index + SqeWord.prp1Low] = address >>> 0;
  words[index + SqeWord.prp1High] = highWord(address);
  words[index + SqeWord.prp2Low] = prp2 >>> 0;
  words[index + SqeWord.prp2High] = highWord(prp2);
}

/**
 * Reads `count` entries of a PRP list, which do not leave a page: 2 words each, the lower first. Undefined when
 * there is no such memory. The memory belongs to the host, and may change: it is asked for, and read, once.
 */
export type PrpListReader = (address: number, count: number) => Uint32Array | undefined;

/**
 * Walks the data pages of a command in order, on the side of the controller. Follows lists that are chained: the last
 * entry of a list page is the address of the next one when more pages are needed.
 *
 * @param prp1 any value of the host's
 * @param prp2 any value of the host's
 * @param length bytes of data, at least 1
 * @param pageSize CC.MPS in bytes
 * @param visit called for each page in order; the parts do not leave a page. What it refuses it handles itself
 * @returns a generic status code: `success`, `prpOffsetInvalid` for a misaligned entry, `dataTransferError` when a list
 *   cannot be read or an address is 2^53 or more. Pages before the fault may have been visited
 */
export function walkPrp(
  prp1: number,
  prp2: number,
  length: number,
  pageSize: number,
  readList: PrpListReader,
  visit: (address: number, length: number) => void,
): number {
  if (prp1 % 4 !== 0) return GenericStatus.prpOffsetInvalid;
  if (prp1 > Number.MAX_SAFE_INTEGER - pageSize) return GenericStatus.dataTransferError;
  const first = Math.min(length, pageSize - (prp1 % pageSize));
  visit(prp1, first);
  let left = length - first;
  if (left <= 0) return GenericStatus.success;
  if (left <= pageSize) {
    const status = checkPage(prp2, pageSize);
    if (status === GenericStatus.success) visit(prp2, left);
    return status;
  }

  // The first list may begin inside a page. The ones after it begin a page (checkPage), and thus hold at least 511
  // data pages each: a chain that a hostile host ties into a ring still ends with the length of the data.
  let list = prp2;
  if (list % PRP_ENTRY_BYTES !== 0) return GenericStatus.prpOffsetInvalid;
  for (;;) {
    if (list > Number.MAX_SAFE_INTEGER - pageSize) return GenericStatus.dataTransferError;
    const needed = Math.ceil(left / pageSize);
    const room = (pageSize - (list % pageSize)) / PRP_ENTRY_BYTES;
    const count = Math.min(needed, room);
    const words = readList(list, count);
    if (words === undefined || words.length < 2 * count) return GenericStatus.dataTransferError;
    const pages = needed > room ? room - 1 : count;
    for (let i = 0; i < pages; i++) {
      const page = joinWords(words[2 * i] as number, words[2 * i + 1] as number);
      const status = checkPage(page, pageSize);
      if (status !== GenericStatus.success) return status;
      const part = Math.min(left, pageSize);
      visit(page, part);
      left -= part;
    }
    if (needed <= room) return GenericStatus.success;
    list = joinWords(words[2 * pages] as number, words[2 * pages + 1] as number);
    const status = checkPage(list, pageSize);
    if (status !== GenericStatus.success) return status;
  }
}

function checkPage(address: number, pageSize: number): number {
  if (address > Number.MAX_SAFE_INTEGER - pageSize) return GenericStatus.dataTransferError;
  return address % pageSize === 0 ? GenericStatus.success : GenericStatus.prpOffsetInvalid;
}
