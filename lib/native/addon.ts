// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import load from 'node-gyp-build';
import { VfioUserError, systemError } from '../errors';
import type { VfioAddon } from './vfio/addon';

/**
 * The functions of the C++ addon. Numbers that they return are results when 0 or above, and `-errno` when negative.
 * Arguments of a wrong type throw a `TypeError`.
 */
export interface NativeAddon {
  bindThread(processors: Int32Array): number;

  close(fd: number): number;
  duplicate(fd: number): number;
  openDevice(path: string): number;
  fileSize(fd: number): number;
  zeroRange(fd: number, offset: number, length: number, deallocate: boolean): number;
  lock(fd: number): number;

  eventfdCreate(initial: number): number;
  eventfdAdopt(fd: number): number;
  eventfdSignal(fd: number, count: number): number;
  eventfdRead(fd: number): number;

  connect(path: string): number;
  bind(path: string): number;
  listen(fd: number, backlog: number): number;
  accept(fd: number): number;
  socketPair(fds: Int32Array): number;
  adoptSocket(fd: number, listening: number): number;
  setSendBuffer(fd: number, bytes: number): number;
  peerCredentials(fd: number, out: Int32Array): number;
  /** A function without arguments, for the memory that `message-window.ts` describes. */
  messageWindow(memory: ArrayBuffer): (() => number) | number;
  wait(fd: number, events: number, timeoutMilliseconds: number): number;

  watch(fd: number, events: number, drain: boolean, callback: (value: number) => void): number;
  setWatcherEvents(watcher: number, events: number): number;
  setWatcherSpin(watcher: number, microseconds: number): number;
  setWatcherRef(watcher: number, on: boolean): number;
  unwatch(watcher: number): number;

  /** The functions of `native/vfio`. */
  readonly vfio: VfioAddon;

  /** The functions of `native/nvme`. `lib/nvme/host` declares and calls them; this room knows nothing of NVMe. */
  readonly nvme: unknown;

  createMemory(name: string, size: number, hugePageSize: number, sealShrink: boolean): number;
  lostEvent(): number;
  map(
    fd: number,
    offset: number,
    length: number,
    writable: boolean,
    alignment: number,
    slot: Int32Array,
  ): ArrayBuffer | number;
  allocate(length: number, huge: number, slot: Int32Array): ArrayBuffer | number;
  discard(buffer: ArrayBuffer, slot: number, offset: number, length: number): number;
  unmap(buffer: ArrayBuffer, slot: number): number;
  mappingCount(): number;
  restoreDevices(): number;
  isLost(slot: number): boolean;
}

/** The package's root, from lib/native as from dist/native. */
const packageRoot = join(__dirname, '..', '..');

let loaded: NativeAddon | undefined;

/**
 * The addon, loaded at the first call: importing this package opens nothing.
 *
 * @throws VfioUserError `ERR_VFIO_USER_ADDON` when it is missing, or does not fit this platform
 */
export function addon(): NativeAddon {
  return (loaded ??= loadAddon());
}

function loadAddon(): NativeAddon {
  // Otherwise another package's addon might be found there.
  if (!isPackageRoot()) {
    throw new VfioUserError(
      'ERR_VFIO_USER_ADDON',
      'A bundler has moved the code of vfio-user away from its native addon. Leave the package out of the bundle: ' +
        "`--external:vfio-user` of esbuild, `externals: [/^vfio-user/], externalsType: 'commonjs'` of webpack; " +
        'and install it where the bundle runs.',
    );
  }
  try {
    return load(packageRoot) as NativeAddon;
  } catch (cause) {
    throw new VfioUserError(
      'ERR_VFIO_USER_ADDON',
      `The native addon of vfio-user cannot be loaded on ${process.platform}-${process.arch}, Node.js ${process.version}. ` +
        'Run `npm rebuild vfio-user`; npm 12 blocks install scripts, so there run ' +
        '`npm install-scripts approve vfio-user && npm rebuild vfio-user`. It needs Linux, and a C++ compiler where no prebuilt addon fits.',
      { cause },
    );
  }
}

function isPackageRoot(): boolean {
  try {
    const { name } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as {
      name?: unknown;
    };
    return name === 'vfio-user';
  } catch {
    return false;
  }
}

/** The result of a system call, or a thrown {@link systemError} when it is a negative errno. */
export function checked(result: number, syscall: string, what: string): number {
  if (result < 0) throw systemError(syscall, -result, what);
  return result;
}
