// SPDX-License-Identifier: MIT
import { realpathSync, renameSync, rmSync, statSync, writeFileSync, type Stats } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { UsageError } from './options';

const NOTHING: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ENOTDIR']);

/**
 * A file that is written at the end of a run. That this is going to work is found out before the run, as far as that is
 * possible; what is there is replaced as a whole, so that nobody sees a part of it.
 */
export class OutputFile {
  /** Where the file is going to be; a symbolic link was followed. */
  readonly path: string;
  readonly #temporary: string;

  /**
   * Finds out whether the file can be written, by making one beside it and removing that at once.
   *
   * @param option that named the file, for messages
   * @throws UsageError
   */
  constructor(option: string, path: string) {
    const fail = (why: string): never => {
      throw new UsageError(`--${option} cannot write ${path === '' ? "''" : path}: ${why}`);
    };
    const existing = statOf(path);
    if (existing?.isDirectory() === true || path === '' || path.endsWith('/'))
      fail('it names a directory, not a file');
    // Replacing a device or a pipe would remove it.
    if (existing !== undefined && !existing.isFile()) fail('it is there, but is no regular file');
    this.path = existing === undefined ? resolve(path) : realpathSync(path);
    const directory = dirname(this.path);
    if (statOf(directory)?.isDirectory() !== true) fail(`there is no directory ${directory}`);
    this.#temporary = join(directory, `.${basename(this.path)}.${process.pid}`);
    try {
      // Neither permissions nor root's power over them tell whether it works.
      this.#create('');
    } catch (error) {
      fail(`no file can be made in ${directory} (${String((error as NodeJS.ErrnoException).code)})`);
    } finally {
      rmSync(this.#temporary, { force: true });
    }
  }

  /** Writes the file, or leaves everything as it was and throws what the system said. */
  write(text: string): void {
    try {
      this.#create(text);
      renameSync(this.#temporary, this.path);
    } catch (error) {
      rmSync(this.#temporary, { force: true });
      throw error;
    }
  }

  #create(text: string): void {
    writeFileSync(this.#temporary, text, { flag: 'wx' });
  }
}

/** What is at a path; undefined when there is nothing, also since a part of the path is no directory. */
export function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    // The option `throwIfNoEntry: false` takes ENOTDIR for nothing from Node.js 22 on only.
    if (NOTHING.has((error as NodeJS.ErrnoException).code)) return undefined;
    throw error;
  }
}
