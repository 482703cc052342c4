// SPDX-License-Identifier: MIT

/** Words of a completion queue entry. */
export const CQE_WORDS = 4;
/** Bytes of a completion queue entry. */
export const CQE_BYTES = 16;
/** CC.IOCQES for {@link CQE_BYTES}. */
export const CQE_SIZE_EXPONENT = 4;

/** Index of each 32-bit word of a completion queue entry (NVMe base 2.0, 3.3.3.2). */
export const CqeWord = {
  /** Command specific result. */
  dw0: 0,
  /** Command specific result, upper half where a command has one. */
  dw1: 1,
  /** SQHD 15:0, SQID 31:16. */
  queue: 2,
  /** Command id 15:0, phase tag 16, status 31:17. Written last, so that a new phase means a whole entry. */
  status: 3,
} as const;

/** Shift of the phase tag in {@link CqeWord.status}. */
export const CQE_PHASE_SHIFT = 16;
/** Shift of the 15-bit status field in {@link CqeWord.status}. */
export const CQE_STATUS_SHIFT = 17;
