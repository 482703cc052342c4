// SPDX-License-Identifier: MIT

/** Which words a terminal shows in which way; undefined for plain text. */
export type Style = 'colours' | undefined;

/** The part of `process.stdout` that tells of a terminal. */
export interface StyledStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/**
 * The style for what is written to a stream: plain, unless it is a terminal, which is not `dumb`, and nobody has set NO_COLOR
 * (no-color.org) to anything but an empty text.
 */
export function styleOf(stream: StyledStream, env: NodeJS.ProcessEnv = process.env): Style {
  const refused = (env['NO_COLOR'] ?? '') !== '' || env['TERM'] === 'dumb';
  return stream.isTTY === true && !refused ? 'colours' : undefined;
}

/** Columns of a terminal; those of COLUMNS, or 80, for one that does not know; undefined for a file or a pipe without COLUMNS. */
export function columnsOf(stream: StyledStream, env: NodeJS.ProcessEnv = process.env): number | undefined {
  const told = Number(env['COLUMNS'] ?? NaN);
  if (stream.isTTY === true && (stream.columns ?? 0) > 0) return stream.columns;
  if (Number.isInteger(told) && told > 0) return told;
  return stream.isTTY === true ? 80 : undefined;
}

/** For headings. */
export function bold(text: string, style: Style): string {
  return painted(text, '1', '22', style);
}

/** For what a reader must know before reading the numbers. */
export function yellow(text: string, style: Style): string {
  return painted(text, '33', '39', style);
}

/** For what went wrong. */
export function red(text: string, style: Style): string {
  return painted(text, '31', '39', style);
}

function painted(text: string, on: string, off: string, style: Style): string {
  return style === undefined ? text : `\x1b[${on}m${text}\x1b[${off}m`;
}
