// SPDX-License-Identifier: MIT
import { parseCount, parseDuration, parseSize } from '../bench/units';
import { closest } from '../closest';
import { UsageError, type BooleanOption, type NumberOption, type OptionSpec } from './option-spec';

/** What an option means: the value of its type; undefined without text and default. */
export type OptionValue = unknown;

/**
 * Reads the text of an option, or its default.
 *
 * @param subject what to call the option in messages: `Option --bs`
 * @param text true for an option that stands alone, undefined for one that is not given
 * @throws UsageError
 */
export function readOption(subject: string, spec: OptionSpec, text: string | true | undefined): OptionValue {
  if (spec.type === 'boolean') return readBoolean(subject, spec, text);
  if (text === true) throw new UsageError(`${subject} needs a value: ${allowed(spec)}`);
  const written = text ?? spec.default;
  if (written === undefined || spec.type === 'string') return written;
  if (spec.type === 'form') {
    const value = spec.parse(written);
    if (value === undefined) throw badValue(subject, written, allowed(spec));
    return value;
  }
  if (spec.type === 'choice') {
    if (spec.choices.includes(written)) return written;
    const guess = closest(written, spec.choices);
    const hint = guess === undefined ? '' : `; did you mean ${guess}?`;
    throw badValue(subject, written, `${allowed(spec)}${hint}`);
  }
  const number = parseNumber(spec, written);
  if (Number.isNaN(number) || number < (spec.min ?? -Infinity) || number > (spec.max ?? Infinity))
    throw badValue(subject, written, allowed(spec));
  return number;
}

function readBoolean(subject: string, spec: BooleanOption, text: string | true | undefined): boolean {
  if (text === undefined) return spec.default === '1';
  if (text === true || text === '1') return true;
  if (text === '0') return false;
  throw new UsageError(`${subject} takes no value, or 0 or 1, but was given '${text}'`);
}

function badValue(subject: string, text: string, expected: string): UsageError {
  return new UsageError(`${subject} does not accept '${text}'; it takes ${expected}`);
}

/** NaN when the text is not a number of the kind. */
function parseNumber(spec: NumberOption, text: string): number {
  try {
    if (spec.type === 'size') return parseSize(text);
    if (spec.type === 'count') return parseCount(text);
    if (spec.type === 'duration') return parseDuration(text, spec.unit);
  } catch {
    return NaN;
  }
  if (spec.type === 'number') return /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
  const number = /^(-?\d+|0x[\da-f]+)$/i.test(text) ? Number(text) : NaN;
  return Number.isSafeInteger(number) ? number : NaN;
}

/** What an option accepts, for messages. */
export function allowed(spec: Exclude<OptionSpec, BooleanOption>): string {
  switch (spec.type) {
    case 'string':
      return `<${spec.placeholder ?? 'text'}>`;
    case 'form':
      return spec.expected;
    case 'choice':
      return `one of ${spec.choices.join(', ')}`;
    case 'size':
      return `a size such as 512, 4k or 1m${range(spec)}`;
    case 'count':
      return `a whole number such as 32 or 10k${range(spec)}`;
    case 'duration':
      return spec.unit === 'us'
        ? `a duration such as 500 (microseconds), 5ms or 1s${range(spec)}`
        : `a duration such as 5, 500ms or 2m${range(spec)}`;
    case 'number':
      return `a number such as 99.9${range(spec)}`;
    case 'integer':
      return `a whole number${range(spec)}`;
  }
}

function range({ min, max, type }: NumberOption): string {
  const unit = type === 'size' ? ' bytes' : type === 'duration' ? ' s' : '';
  if (min !== undefined && max !== undefined) return `, from ${min} to ${max}${unit}`;
  if (min !== undefined) return `, at least ${min}${unit}`;
  return max === undefined ? '' : `, at most ${max}${unit}`;
}
