// SPDX-License-Identifier: MIT
import { Buffer } from 'node:buffer';

/** File types of a mode (inode(7)). */
const Type = { directory: 0o040000, character: 0o020000, file: 0o100000, link: 0o120000 } as const;

/**
 * An archive as Linux unpacks it at boot (Linux, Documentation/driver-api/early-userspace/buffer-format.rst): "newc" of
 * cpio(5). All files belong to root. Archives one behind the other are one.
 */
export class CpioArchive {
  readonly #parts: Buffer[] = [];
  readonly #directories = new Set<string>();

  /** Adds a file at an absolute path, and the folders above it. */
  file(path: string, contents: Uint8Array | string, mode = 0o644): this {
    return this.#add(path, Type.file | mode, Buffer.from(contents));
  }

  link(path: string, target: string): this {
    return this.#add(path, Type.link | 0o777, Buffer.from(target));
  }

  directory(path: string): this {
    if (path === '' || this.#directories.has(path)) return this;
    this.#directories.add(path);
    return this.#add(path, Type.directory | 0o755);
  }

  characterDevice(path: string, major: number, minor: number): this {
    return this.#add(path, Type.character | 0o600, Buffer.alloc(0), major, minor);
  }

  /** The archive, with its trailer. */
  finish(): Buffer {
    this.#entry('TRAILER!!!', 0, Buffer.alloc(0), 0, 0);
    return Buffer.concat(this.#parts);
  }

  #add(path: string, mode: number, contents = Buffer.alloc(0), major = 0, minor = 0): this {
    this.directory(path.slice(0, path.lastIndexOf('/')));
    this.#entry(path.slice(1), mode, contents, major, minor);
    return this;
  }

  #entry(name: string, mode: number, contents: Buffer, major: number, minor: number): void {
    // Inode, mode, user, group, links, time, size, device, device of a special file, length of the name, checksum
    const fields = [0, mode, 0, 0, 1, 0, contents.length, 0, 0, major, minor, name.length + 1, 0];
    const header = fields.map((field) => field.toString(16).padStart(8, '0')).join('');
    this.#parts.push(padded(Buffer.from(`070701${header}${name}\0`)), padded(contents));
  }
}

function padded(bytes: Buffer): Buffer {
  return bytes.length % 4 === 0 ? bytes : Buffer.concat([bytes], (bytes.length + 3) & ~3);
}
