// SPDX-License-Identifier: MIT

/** Writes text to stdout and ends it with a line feed. */
export function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

/** Writes one line to stderr, with the program's name before it. */
export function complain(text: string): void {
  process.stderr.write(`vfio-user: ${printable(text)}\n`);
}

/** Text without control characters: what comes from a device must not move the cursor of the terminal. */
export function printable(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').replace(/\p{Cc}/gu, '?');
}

/** A word as a shell reads it back. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A number in hexadecimal with a prefix: `0x010802`. */
export function hex(value: number | bigint, digits = 1): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}

/** A reader who has seen enough, such as head(1), closes the pipe: the rest of the output goes nowhere, and that is no error. */
export function ignoreClosedPipe(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}
