// SPDX-License-Identifier: MIT
export * from './host';
