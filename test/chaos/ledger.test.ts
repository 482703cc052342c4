// SPDX-License-Identifier: MIT
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fillBlock } from '../../lib/bench/verify-pattern';
import { BLOCKS_PER_CELL, HEADER_WORDS, Ledger, WORDS_PER_BLOCK, WORDS_PER_CELL } from './ledger';

const SEED = 5;
const CELL = 3;
const AT = CELL * WORDS_PER_CELL;
let ledger: Ledger;
let words: Uint32Array;
beforeEach(() => {
  ledger = new Ledger(8, SEED);
  words = new Uint32Array(8 * WORDS_PER_CELL);
});

/** Writes a generation to blocks of the cell. */
function store(generation: number, { from = 0, to = BLOCKS_PER_CELL, seed = SEED, cell = CELL } = {}): void {
  for (let index = from; index < to; index++) {
    const block = { lba: cell * BLOCKS_PER_CELL + index, generation, seed };
    fillBlock(words, AT + index * WORDS_PER_BLOCK, WORDS_PER_BLOCK, block);
  }
}

const inspect = (): ReturnType<Ledger['inspect']> => ledger.inspect(words, AT, CELL);

test('a cell that was never acknowledged may hold zeros, or what was sent', () => {
  expect(inspect()).toEqual({ generation: 0 });
  ledger.issue(CELL);
  expect(inspect()).toEqual({ generation: 0 });
  store(1, { to: 4 });
  expect(inspect()).toEqual({ generation: 0 });
  store(1);
  expect(inspect()).toEqual({ generation: 1 });
});

test('after an acknowledgement, anything older is lost', () => {
  store(ledger.issue(CELL));
  store(ledger.issue(CELL));
  ledger.acknowledge(CELL, 2);
  expect(inspect()).toEqual({ generation: 2 });
  store(1, { from: 7 });
  expect(inspect().mistake).toContain('LBA 31: stale: expected pass 2, found pass 1; a write was lost');
  words.fill(0);
  expect(inspect().mistake).toContain('zero');
});

test('a write that was sent later may be there, as a whole or in part', () => {
  store(ledger.issue(CELL));
  ledger.acknowledge(CELL, 1);
  store(ledger.issue(CELL), { to: 3 });
  expect(inspect()).toEqual({ generation: 1 });
  store(2);
  expect(inspect()).toEqual({ generation: 2 });
});

test.each([
  ['what was never sent', { generation: 9 }, 'pass 9'],
  ['data of another run', { generation: 1, seed: 6 }, 'another run'],
  ['data of another cell', { generation: 1, cell: 2 }, 'misdirected'],
])('%s is wrong', (_, { generation, ...where }, text) => {
  ledger.acknowledge(CELL, ledger.issue(CELL));
  store(generation, where);
  expect(inspect().mistake).toContain(text);
});

test('a flipped bit is wrong', () => {
  store(ledger.issue(CELL));
  words[AT + 100]! ^= 0x10;
  expect(inspect().mistake).toContain('corrupt');
});

test('a flush covers what was acknowledged when it was sent', () => {
  ledger.acknowledge(CELL, ledger.issue(CELL));
  const before = ledger.beforeFlush();
  ledger.acknowledge(CELL, ledger.issue(CELL));
  expect(ledger.unflushed()).toEqual([CELL]);
  ledger.flush(before);
  expect(ledger.flushedOf(CELL)).toBe(1);
  expect(ledger.unflushed()).toEqual([CELL]);
  ledger.flush(ledger.beforeFlush());
  expect(ledger.unflushed()).toEqual([]);
  // An older flush that ends late takes nothing back.
  ledger.flush(before);
  expect(ledger.flushedOf(CELL)).toBe(2);
});

test('after a power cut the cell holds what was found, and that is not lost any more', () => {
  store(ledger.issue(CELL));
  ledger.acknowledge(CELL, ledger.issue(CELL));
  expect(ledger.inspect(words, AT, CELL, ledger.flushedOf(CELL))).toEqual({ generation: 1 });
  ledger.settle(CELL, 1);
  expect(inspect()).toEqual({ generation: 1 });
  words.fill(0);
  expect(inspect().mistake).toBeDefined();
});

test('what the tool itself destroyed may be anything that was ever there', () => {
  store(ledger.issue(CELL));
  ledger.acknowledge(CELL, 1);
  ledger.flush(ledger.beforeFlush());
  ledger.forget(CELL);
  expect(inspect()).toEqual({ generation: 1 });
  words.fill(0);
  expect(inspect()).toEqual({ generation: 0 });
});

test('a file has every change at once, and another ledger goes on from there', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ledger-'));
  const path = join(folder, 'ledger');
  writeFileSync(path, new Uint8Array(Ledger.wordsOf(8) * 4));
  const fd = openSync(path, 'r+');
  const open = (): Ledger => {
    const all = new Uint32Array(Ledger.wordsOf(8));
    new Uint8Array(all.buffer).set(readFileSync(path));
    return new Ledger(8, SEED, { fd, words: all });
  };
  const one = open();
  one.setHeader(HEADER_WORDS - 1, 77);
  one.acknowledge(CELL, one.issue(CELL));
  one.issue(CELL);
  const two = open();
  expect(two.words).toEqual(one.words);
  expect(two.words[HEADER_WORDS - 1]).toBe(77);
  expect(two.acknowledgedOf(CELL)).toBe(1);
  expect(two.issue(CELL)).toBe(3);
  closeSync(fd);
  rmSync(folder, { recursive: true });
});
