// SPDX-License-Identifier: MIT

/** What a device may do with memory, as the addon takes it. */
export const DmaAccessBit = { read: 1, write: 2, readwrite: 3 } as const;

/** One of {@link DmaAccessBit}. */
export type DmaAccessBit = (typeof DmaAccessBit)[keyof typeof DmaAccessBit];
