// SPDX-License-Identifier: MIT
import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PreloadedLibrary } from './preloaded-library';

/**
 * Stands between a process and its files. A file that both map tells it what to do: the words of {@link Word}, then a byte
 * for each block of 512 bytes that was written since the last fdatasync(2), which only a storage with a platter looks at.
 *
 * With a platter, what is written is volatile, as in the cache of a kernel or a drive: fdatasync(2) copies the blocks that
 * were written to the platter, and one that fails forgets them, as Linux takes pages for clean after a failed write-back.
 */
const SOURCE = `
  #define _GNU_SOURCE
  #include <dlfcn.h>
  #include <errno.h>
  #include <fcntl.h>
  #include <pthread.h>
  #include <stdint.h>
  #include <stdlib.h>
  #include <sys/mman.h>
  #include <sys/stat.h>
  #include <unistd.h>
  enum { WORDS = 16, BLOCK = 512, DROP_EVERY = 50 };
  static volatile int64_t* control;
  static volatile unsigned char* dirty;
  static int64_t blocks;
  static int platter = -1;
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static ssize_t (*real_pwrite)(int, const void*, size_t, off_t);
  static ssize_t (*real_pread)(int, void*, size_t, off_t);
  static int (*real_fdatasync)(int);
  static int (*real_fallocate)(int, int, off_t, off_t);
  __attribute__((constructor)) static void begin(void) {
    real_pwrite = (ssize_t (*)(int, const void*, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    real_pread = (ssize_t (*)(int, void*, size_t, off_t))dlsym(RTLD_NEXT, "pread64");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    real_fallocate = (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT, "fallocate64");
    const char* path = getenv("STORAGE_CONTROL");
    if (path == NULL) return;
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) abort();
    void* memory = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) abort();
    dirty = (volatile unsigned char*)memory + WORDS * 8;
    blocks = status.st_size - WORDS * 8;
    const char* disk = getenv("STORAGE_PLATTER");
    if (disk != NULL && (platter = open(disk, O_RDWR | O_CLOEXEC)) < 0) abort();
    control = memory;
  }
  static int concerns(int fd) {
    struct stat status;
    if (control == NULL || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return 0;
    if (control[5] > 0) usleep(control[5]);
    return 1;
  }
  static int fails(int word, off_t offset, size_t length) {
    if (offset >= control[word + 1] || offset + (int64_t)length <= control[word]) return 0;
    control[8]++;
    errno = EIO;
    return 1;
  }
  static size_t part(size_t length) { return control[6] != 0 && length > 1 ? length / 2 : length; }
  static void spoil(off_t offset, ssize_t length) {
    for (int64_t block = offset / BLOCK; platter >= 0 && length > 0 && block * BLOCK < offset + length; block++)
      if (block < blocks) dirty[block] = 1;
  }
  int fallocate64(int fd, int mode, off_t offset, off_t length) {
    if (!concerns(fd)) return real_fallocate(fd, mode, offset, length);
    if (fails(0, offset, length)) return -1;
    pthread_mutex_lock(&lock);
    const int result = real_fallocate(fd, mode, offset, length);
    const int error = errno;
    if (result == 0) spoil(offset, length);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
  }
  int fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate64(fd, mode, offset, length); }
  ssize_t pwrite64(int fd, const void* data, size_t length, off_t offset) {
    static int64_t count;
    if (!concerns(fd)) return real_pwrite(fd, data, length, offset);
    if (fails(0, offset, length)) return -1;
    pthread_mutex_lock(&lock);
    ssize_t written = length;
    if (control[7] != 1 || ++count % DROP_EVERY != 0) written = real_pwrite(fd, data, part(length), offset);
    spoil(offset, written);
    const int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
  }
  ssize_t pwrite(int fd, const void* data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }
  ssize_t pread64(int fd, void* data, size_t length, off_t offset) {
    if (!concerns(fd)) return real_pread(fd, data, length, offset);
    return fails(2, offset, length) ? -1 : real_pread(fd, data, part(length), offset);
  }
  ssize_t pread(int fd, void* data, size_t length, off_t offset) { return pread64(fd, data, length, offset); }
  static int sync_platter(int fd) {
    unsigned char block[BLOCK];
    for (int64_t at = 0; at < blocks; at++) {
      if (dirty[at] == 0) continue;
      const ssize_t count = real_pread(fd, block, BLOCK, at * BLOCK);
      if (count > 0 && real_pwrite(platter, block, count, at * BLOCK) != count) return -1;
      dirty[at] = 0;
    }
    return 0;
  }
  int fdatasync(int fd) {
    if (!concerns(fd)) return real_fdatasync(fd);
    pthread_mutex_lock(&lock);
    int result = 0;
    if (control[4] != 0 || control[7] == 2) {
      for (int64_t at = 0; at < blocks; at++) dirty[at] = 0;
      result = control[4] != 0 ? -1 : 0;
      if (result != 0) control[8]++;
    } else {
      result = platter >= 0 ? sync_platter(fd) : real_fdatasync(fd);
    }
    pthread_mutex_unlock(&lock);
    if (result != 0) errno = EIO;
    return result;
  }`;

/** The words by which a {@link FailingStorage} is told what to do; ranges of bytes have a begin and an end. */
const Word = { pwrite: 0, pread: 2, fdatasync: 4, delay: 5, short: 6, lie: 7, failed: 8 } as const;
const WORDS = 16;
const BLOCK = 512;
const LIES = ['none', 'write', 'flush'] as const;
/** What a storage that lies does: acknowledges a write in 50 without writing, or a flush without flushing. */
export type Lie = (typeof LIES)[number];

/** How a {@link FailingStorage} is made. */
export interface FailingStorageOptions {
  /** Bytes of the file that is stored, and of the platter. */
  readonly size: number;
  /** Whether there is a platter: what was not flushed can be lost then, by {@link FailingStorage.cutPower}. */
  readonly platter?: boolean;
}

/** Storage that fails by plan, for the regular files of a process with {@link environment}. */
export class FailingStorage {
  readonly #library = new PreloadedLibrary(SOURCE);
  readonly #folder = mkdtempSync(join(tmpdir(), 'vfio-user-storage-'));
  readonly #control = join(this.#folder, 'control');
  readonly #fd: number;
  readonly #size: number;
  /** The file with what is durable; undefined without. */
  readonly platter: string | undefined;

  constructor({ size, platter = false }: FailingStorageOptions) {
    this.#size = size;
    writeFileSync(this.#control, new Uint8Array(WORDS * 8 + Math.ceil(size / BLOCK)));
    this.#fd = openSync(this.#control, 'r+');
    if (platter) {
      this.platter = join(this.#folder, 'platter');
      this.clearPlatter();
    }
  }

  /** Variables for the process. */
  get environment(): Record<string, string> {
    return {
      ...this.#library.environment,
      STORAGE_CONTROL: this.#control,
      ...(this.platter !== undefined && { STORAGE_PLATTER: this.platter }),
    };
  }

  /** How many calls have failed by plan. */
  get failures(): number {
    const word = new BigInt64Array(1);
    readSync(this.#fd, new Uint8Array(word.buffer), 0, 8, Word.failed * 8);
    return Number(word[0]);
  }

  /** From now on, calls that touch a range of bytes fail with EIO; of fdatasync all calls. */
  fail(call: 'pread' | 'pwrite' | 'fdatasync', offset = 0, length = 1): void {
    if (call === 'fdatasync') {
      this.#set(Word.fdatasync, 1);
      return;
    }
    // Between the two a call sees an empty range, as an end of 0 is before every begin.
    this.#set(Word[call], offset);
    this.#set(Word[call] + 1, offset + length);
  }

  /** Calls succeed again. */
  heal(call: 'pread' | 'pwrite' | 'fdatasync'): void {
    this.#set(call === 'fdatasync' ? Word.fdatasync : Word[call] + 1, 0);
  }

  /** How long each call takes longer, in microseconds. */
  delay(microseconds: number): void {
    this.#set(Word.delay, microseconds);
  }

  /** Whether calls transfer half of what they are asked for. */
  short(on: boolean): void {
    this.#set(Word.short, on ? 1 : 0);
  }

  lie(about: Lie): void {
    this.#set(Word.lie, LIES.indexOf(about));
  }

  /** The file becomes what was flushed of it. For a storage with a platter, whose process has ended. */
  cutPower(file: string): void {
    if (this.platter === undefined) throw new Error('this storage has no platter');
    copyFileSync(this.platter, file);
    this.#forget();
  }

  /** A new platter, of zeros. */
  clearPlatter(): void {
    if (this.platter === undefined) throw new Error('this storage has no platter');
    writeFileSync(this.platter, '');
    truncateSync(this.platter, this.#size);
    this.#forget();
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
    rmSync(this.#folder, { recursive: true });
    this.#library[Symbol.dispose]();
  }

  /** What was written and not flushed is not known any more. */
  #forget(): void {
    const blocks = new Uint8Array(Math.ceil(this.#size / BLOCK));
    writeSync(this.#fd, blocks, 0, blocks.length, WORDS * 8);
  }

  #set(word: number, value: number): void {
    writeSync(this.#fd, new Uint8Array(BigInt64Array.of(BigInt(value)).buffer), 0, 8, word * 8);
  }
}
