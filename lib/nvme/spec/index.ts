// SPDX-License-Identifier: MIT
/**
 * What the NVMe specifications define, as far as the driver and the emulated controller share it: registers,
 * queue entries, opcodes, status codes, data structures. Pure: nothing here does I/O or keeps state.
 */
export { joinWords, type WordCodec } from './bits';
export * from './command-words';
export * from './completion-entry';
export * from './features';
export * from './identify-controller';
export * from './identify-lists';
export * from './identify-namespace';
export * from './logs';
export * from './namespace-management';
export * from './opcodes';
export * from './prp';
export * from './registers';
export * from './sgl';
export * from './status';
export * from './submission-entry';
