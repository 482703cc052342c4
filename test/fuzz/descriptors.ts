// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { closeSync, constants, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EventFd, Socket, closeFd, createSharedMemory } from '../../lib/native';

export const FD_KINDS = [
  'sealed',
  'memory',
  'short',
  'shrinking',
  'eventfd',
  'full eventfd',
  'pipe',
  'socket',
  'directory',
  'null',
  'read-only',
  'write-only',
  'empty',
] as const;
/** A kind of descriptor that is sent to the fuzzed side. */
export type FdKind = (typeof FD_KINDS)[number];

/** Bytes of the files that hold memory. */
export const MEMORY_BYTES = 1 << 20;

/** A descriptor of each kind. */
export class Descriptors {
  readonly #directory = mkdtempSync(join(tmpdir(), 'vfio-user-fuzz-'));
  readonly #fds = new Map<FdKind, number>();
  readonly #events = [EventFd.create(), EventFd.create(0xffff_ffff)] as const;
  readonly #sockets = Socket.pair();

  constructor() {
    const path = (name: string): string => join(this.#directory, name);
    execFileSync('mkfifo', [path('pipe')]);
    writeFileSync(path('file'), new Uint8Array(MEMORY_BYTES));
    writeFileSync(path('empty'), '');
    // Its counter takes no more.
    for (let i = 0; i < 2; i++) this.#events[1].signal(Number.MAX_SAFE_INTEGER);
    this.#fds.set('sealed', createSharedMemory(MEMORY_BYTES));
    this.#fds.set('memory', createSharedMemory(MEMORY_BYTES, { sealed: false }));
    this.#fds.set('short', createSharedMemory(4096));
    this.#fds.set('shrinking', createSharedMemory(MEMORY_BYTES, { sealed: false }));
    this.#fds.set('eventfd', this.#events[0].fd);
    this.#fds.set('full eventfd', this.#events[1].fd);
    this.#fds.set('pipe', openSync(path('pipe'), constants.O_RDWR | constants.O_NONBLOCK));
    this.#fds.set('socket', this.#sockets[0].fd);
    this.#fds.set('directory', openSync(this.#directory, constants.O_RDONLY));
    this.#fds.set('null', openSync('/dev/null', constants.O_RDWR));
    this.#fds.set('read-only', openSync(path('file'), constants.O_RDONLY));
    this.#fds.set('write-only', openSync(path('file'), constants.O_WRONLY));
    this.#fds.set('empty', openSync(path('empty'), constants.O_RDWR));
  }

  get(kind: FdKind): number {
    const fd = this.#fds.get(kind);
    if (fd === undefined) throw new Error(`no descriptor of kind ${kind}`);
    return fd;
  }

  /** The eventfd that all messages share. */
  get event(): EventFd {
    return this.#events[0];
  }

  /** Sets the size of the `shrinking` file, under whoever has mapped it. */
  resize(bytes: number): void {
    ftruncateSync(this.get('shrinking'), bytes);
  }

  close(): void {
    const owned: readonly FdKind[] = ['eventfd', 'full eventfd', 'socket'];
    const native: readonly FdKind[] = ['sealed', 'memory', 'short', 'shrinking'];
    for (const event of this.#events) event.close();
    for (const socket of this.#sockets) socket.close();
    for (const [kind, fd] of this.#fds) {
      if (native.includes(kind)) closeFd(fd);
      else if (!owned.includes(kind)) closeSync(fd);
    }
    rmSync(this.#directory, { recursive: true });
  }
}
