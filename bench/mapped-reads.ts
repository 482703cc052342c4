// SPDX-License-Identifier: MIT
// mapped-reads SHAPE PATH COUNT: what bench/c/client.c measures of mapped registers, with the same loops: COUNT times of
// 100,000 reads each, in nanoseconds, a line each. A process of its own: from the first ArrayBuffer on that was detached, as
// when a mapping is closed, V8 checks each access to any other for that.
import { connect } from 'vfio-user';
import type { OurLoads } from './micro-programs';

const LOADS = 100_000;
const PAGE = 4096;
/** Word of the mapped page that the server leaves 0. */
const ZERO_WORD = 512;

/** Reads registers COUNT times. */
type Load = (count: number) => number;

/**
 * The array is a constant of the function, as `const registers = new Uint32Array(mapping.buffer)` is in a module: V8 then knows
 * where the registers are and how many, and checks no index. Eight in a turn of the loop, so that reads are timed and not
 * the loop.
 */
function eights(registers: Uint32Array): Load {
  return (count) => {
    let value = 0;
    for (let load = 0; load < count; load += 8) {
      value ^= registers[0] as number;
      value ^= registers[1] as number;
      value ^= registers[2] as number;
      value ^= registers[3] as number;
      value ^= registers[4] as number;
      value ^= registers[5] as number;
      value ^= registers[6] as number;
      value ^= registers[7] as number;
    }
    return value;
  };
}

/** The array is whatever the function is given. Not called by the function above, as V8 would then make the same of both. */
function loadEights(registers: Uint32Array, count: number): number {
  let value = 0;
  for (let load = 0; load < count; load += 8) {
    value ^= registers[0] as number;
    value ^= registers[1] as number;
    value ^= registers[2] as number;
    value ^= registers[3] as number;
    value ^= registers[4] as number;
    value ^= registers[5] as number;
    value ^= registers[6] as number;
    value ^= registers[7] as number;
  }
  return value;
}

function singles(registers: Uint32Array): Load {
  return (count) => {
    let value = 0;
    for (let load = 0; load < count; load++) value ^= registers[0] as number;
    return value;
  };
}

/** Each begins when the one before has its value, as when a program acts by what it read. */
function chained(registers: Uint32Array): Load {
  return (count) => {
    let value = 0;
    for (let load = 0; load < count; load++) value = registers[ZERO_WORD + value] as number;
    return value;
  };
}

/** The clock is read in another function than the registers: V8 makes less of a loop in a function with calls. */
function loadTime(load: Load): number {
  const start = performance.now();
  const value = load(LOADS);
  const time = (performance.now() - start) * 1e6;
  // Used, so that the loop has to be run.
  return value === 0.5 ? NaN : time;
}

const SHAPES: Readonly<Record<OurLoads, (registers: Uint32Array) => Load>> = {
  loads: eights,
  'argument-loads': (registers) => (count) => loadEights(registers, count),
  'single-loads': singles,
  'chained-loads': chained,
  'loads-after-close': eights,
};

async function main([shape = '', path = '', count = '']: readonly string[]): Promise<void> {
  if (!Object.hasOwn(SHAPES, shape)) throw new Error(`nothing to measure is called ${shape}`);
  await using device = await connect(path, { dma: { hugePages: 'never' } });
  const bar0 = await device.region('bar0');
  if (shape === 'loads-after-close') bar0.map(PAGE, PAGE).close();
  const registers = new Uint32Array(bar0.map(PAGE, PAGE).buffer);
  const load = SHAPES[shape as OurLoads](registers);
  const times = Array.from({ length: Number(count) }, () => loadTime(load));
  console.log(times.join('\n'));
}

void main(process.argv.slice(2));
