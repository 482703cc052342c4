// SPDX-License-Identifier: MIT
export type { IrqMode, IrqOptions } from './options';
export type { IrqIndex } from './irq-index';
export type { SignalStream } from './signal-stream';
export type { IrqTarget, VectorSelection } from './targets';
export type { IrqHandler, IrqTrace, IrqVector } from './vector';
