// SPDX-License-Identifier: MIT
/**
 * A drive for the guest that QEMU_KERNEL and QEMU_INITRD make: a Linux with its NVMe driver, and an initramfs whose init
 * 1. mounts devtmpfs, procfs and sysfs, and waits for /dev/nvme0n1;
 * 2. prints `guest: sha256 <hexadecimal>` of the device's first MiB to its console;
 * 3. copies the first MiB of the device to its second one, with fsync, and prints `guest: copied`;
 * 4. reads both again past its cache, and prints `guest: equal` when they are;
 * 5. powers off.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { startCli, type Running, type Scratch } from '../cli/run-cli';
import { Memory, QemuMachine, guestOptions } from '../support/qemu-machine';

const MIB = 2 ** 20;

/** A file of random bytes, which `serve nvme` serves. */
export class GuestDrive {
  readonly socket: string;
  readonly #scratch: Scratch;
  readonly #file: string;
  readonly #data = randomBytes(4 * MIB);
  readonly #serving: Running;

  private constructor(scratch: Scratch, socket: string) {
    this.socket = socket;
    this.#scratch = scratch;
    this.#file = scratch.file('data');
    writeFileSync(this.#file, this.#data);
    const backend = ['--backend', 'file', '--file', this.#file];
    this.#serving = startCli(scratch, 'serve', 'nvme', '--socket', socket, ...backend);
  }

  static async serve(scratch: Scratch, socket: string): Promise<GuestDrive> {
    const drive = new GuestDrive(scratch, socket);
    await drive.#serving.said('Ctrl-C ends it.');
    return drive;
  }

  /** Boots the guest with the drive as the device at `socket`, and waits until it has done all, and has read what is there. */
  async boot(socket: string): Promise<void> {
    const console = this.#scratch.file('console');
    const machine = await QemuMachine.start(socket, Memory.shared, ...guestOptions(console));
    expect(await machine.ended).toBe(0);
    const said = readFileSync(console, 'latin1');
    const sha256 = createHash('sha256').update(this.#data.subarray(0, MIB)).digest('hex');
    for (const line of [`guest: sha256 ${sha256}`, 'guest: copied', 'guest: equal'])
      expect(said).toContain(line);
  }

  /** Ends the server; the file has what the guest has written. */
  async end(): Promise<void> {
    await endQuietly(this.#serving);
    this.#data.copyWithin(MIB, 0, MIB);
    expect(readFileSync(this.#file).equals(this.#data)).toBe(true);
  }
}

/** Ends a server, which had nothing to complain of. */
export async function endQuietly(serving: Running): Promise<void> {
  serving.kill('SIGTERM');
  expect(await serving.ended).toMatchObject({ status: 0, stderr: '' });
}
