// SPDX-License-Identifier: MIT
/** What the texts of the benchmark's options mean, see `FormOption`: undefined for one that does not have the form. */
import type { BlockSplit, Distribution, SizeShare } from '../bench/job';
import { parseProcessors } from '../bench/processors';
import type { SteadyCriterion } from '../bench/steady-state';
import { parseCount, parsePercentiles, parseSize } from '../bench/units';
import { deviceName, isDeviceName } from '../kernel/device-name';

/** Exponent of `zipf` without a number, which is fio's default. */
const DEFAULT_THETA = 1.1;
/** Bytes of the smallest block that is taken. */
const LEAST_BLOCK = 512;

/** The sizes of `bs`, by direction: as in fio, a direction without one has that of the direction before. */
export function parseBlockSizes(text: string): BlockSplit | undefined {
  const sizes = text.split(',').map((word) => parsed(parseSize, word));
  const [read, write = read, trim = write] = sizes;
  if (sizes.length > 3 || read === undefined || write === undefined || trim === undefined) return undefined;
  if ([read, write, trim].some((bytes) => bytes < LEAST_BLOCK)) return undefined;
  const whole = (bytes: number): SizeShare[] => [{ bytes, share: 1 }];
  return { read: whole(read), write: whole(write), trim: whole(trim) };
}

export function parseSplit(text: string): BlockSplit | undefined {
  const lists = text.split(',').map(parseShares);
  const [read, write = read, trim = write] = lists;
  if (lists.length > 3 || read === undefined || write === undefined || trim === undefined) return undefined;
  return lists.includes(undefined) ? undefined : { read, write, trim };
}

/** `4k/60:64k/`: a size without a percentage has an equal part of what the others leave. */
function parseShares(text: string): SizeShare[] | undefined {
  const parts = text.split(':').map((part) => {
    const match = /^([^/]+)(?:\/(\d+(?:\.\d+)?)?)?$/.exec(part);
    const bytes = parsed(parseSize, match?.[1] ?? '');
    return bytes === undefined || bytes < LEAST_BLOCK
      ? undefined
      : { bytes, percent: match?.[2] === undefined ? undefined : Number(match[2]) };
  });
  if (parts.length > 64) return undefined;
  const known = parts.flatMap((part) => (part === undefined ? [] : [part]));
  if (known.length < parts.length) return undefined;
  const given = known.reduce((sum, { percent = 0 }) => sum + percent, 0);
  const open = known.filter(({ percent }) => percent === undefined).length;
  if (given > 100 + 1e-9 || (open === 0 && Math.abs(given - 100) > 1e-9)) return undefined;
  return known.map(({ bytes, percent = (100 - given) / open }) => ({ bytes, share: percent / 100 }));
}

export function parseDistribution(law: string): Distribution | undefined {
  const match = /^(?:(random)|zipf(?::(\d+(?:\.\d+)?))?)$/.exec(law);
  const theta = Number(match?.[2] ?? DEFAULT_THETA);
  if (match === null || !(theta > 0 && theta <= 10)) return undefined;
  return match[1] === undefined ? { kind: 'zipf', theta } : { kind: 'uniform' };
}

export function parseProcessorList(text: string): readonly number[] | undefined {
  const numbers = parseProcessors(text);
  return numbers.length > 0 && numbers.every((number) => number < 1024) ? numbers : undefined;
}

export function parseAddresses(text: string): readonly string[] | undefined {
  return text.split(',').every(isDeviceName) ? text.split(',').map(deviceName) : undefined;
}

type Criterion = Pick<SteadyCriterion, 'measure' | 'slope' | 'limit' | 'percent'>;

export function parseSteadyState(text: string): Criterion | undefined {
  const match = /^(iops|bw)(_slope)?:([^%]+)(%)?$/.exec(text);
  const measure = match?.[1] === 'bw' ? ('bw' as const) : ('iops' as const);
  const percent = match?.[4] !== undefined;
  const number = match?.[3] ?? '';
  const limit = percent
    ? /^\d+(\.\d+)?$/.test(number)
      ? Number(number)
      : undefined
    : parsed(measure === 'bw' ? parseSize : parseCount, number);
  if (match === null || limit === undefined || !(limit > 0)) return undefined;
  return { measure, slope: match[2] !== undefined, limit, percent };
}

export function parsePercentileList(text: string): readonly number[] | undefined {
  return parsed(parsePercentiles, text);
}

function parsed<T>(parse: (text: string) => T, text: string): T | undefined {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}
