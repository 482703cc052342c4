// SPDX-License-Identifier: MIT
import { appendFileSync, copyFileSync, readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Scratch } from '../cli/run-cli';
import { KERNEL_WORDS, Memory, QemuMachine, memoryOptions } from '../support/qemu-machine';
import { CpioArchive } from './cpio';

/** Kernel and initramfs of all guests, which prepare.ts has named. */
const { QEMU_KERNEL = '', GUEST_IMAGE = '' } = process.env;

/** What a script in a guest may ask the host for, by the words behind `host` (lib.sh). */
export type Host = Readonly<Record<string, (machine: QemuMachine) => Promise<unknown>>>;

/** How a check ended; `why` it was skipped, or what it had said when it failed. */
export interface Outcome {
  readonly result: 'ok' | 'skipped' | 'failed';
  readonly why: string;
}

export interface GuestOptions {
  /** Name of a file in `scripts`, without `.sh`. */
  readonly script: string;
  /** More options of QEMU: devices, above all. */
  readonly options: readonly string[];
  /** More words for the kernel. */
  readonly words?: readonly string[];
  /** A folder of this machine that is in the guest too, as /host. */
  readonly folder?: string;
  /** Processors; 2 when left out. */
  readonly processors?: number;
  /** Its kernel and its initramfs are two more drives, for kexec. */
  readonly kexec?: boolean;
  /** More files of its initramfs: an archive. */
  readonly files?: Uint8Array;
  readonly host?: Host;
}

const MEGABYTES = 768;

/** Path of a guest script. */
function scriptFile(name: string): string {
  return join(__dirname, 'scripts', `${name}.sh`);
}

/** Names of the checks of a script, in their order. */
export function checksOf(script: string): string[] {
  return [...readFileSync(scriptFile(script), 'utf8').matchAll(/^check '([^']+)'/gm)].map(
    ([, name = '']) => name,
  );
}

/** A machine whose Linux runs a script, and tells how its checks end. */
export class Guest {
  /** By the names of checks. */
  readonly outcomes = new Map<string, Outcome>();
  /** What init has said at each boot: uptime and version. */
  readonly boots: string[] = [];
  readonly #scratch: Scratch;
  readonly #options: GuestOptions;
  readonly #console: string;
  readonly #line: Server;
  #machine: QemuMachine | undefined;
  #said: string[] = [];

  constructor(scratch: Scratch, options: GuestOptions) {
    this.#scratch = scratch;
    this.#options = options;
    this.#console = scratch.file('console');
    this.#line = createServer((socket) => {
      // What a machine that is killed leaves behind is of no interest.
      socket.on('error', () => {});
      createInterface({ input: socket }).on('line', (text) => {
        this.#take(text, socket);
      });
    });
  }

  /**
   * Boots it, and waits until it has powered off, for so many milliseconds. Returns what went wrong; undefined when nothing
   * has.
   */
  async run(milliseconds: number): Promise<string | undefined> {
    const machine = await this.#boot();
    let late: NodeJS.Timeout | undefined;
    const deadline = new Promise<'late'>((resolve) => {
      late = setTimeout(resolve, milliseconds, 'late');
    });
    const code = await Promise.race([machine.ended, deadline]);
    clearTimeout(late);
    if (code === 0) return undefined;
    const how =
      code === 'late'
        ? `was not off after ${milliseconds / 1000} s`
        : `ended with code ${code ?? 'of a signal'}`;
    return `the machine ${how}. ${machine.stderr}\n${this.consoleEnd()}`;
  }

  /** Ends it whatever it does. */
  async close(): Promise<void> {
    await this.#machine?.kill();
    this.#line.close();
  }

  /** The last lines of its console. */
  consoleEnd(): string {
    return readFileSync(this.#console, 'latin1').replaceAll('\r', '').split('\n').slice(-40).join('\n');
  }

  async #boot(): Promise<QemuMachine> {
    const { script, folder, options, words = [], processors = 2, kexec = false, files } = this.#options;
    const [line, initrd] = [this.#scratch.file('line'), this.#scratch.file('initrd')];
    await new Promise<void>((resolve) => this.#line.listen(line, resolve));
    copyFileSync(GUEST_IMAGE, initrd);
    appendFileSync(initrd, ownFiles(script, folder));
    if (files !== undefined) appendFileSync(initrd, files);
    this.#machine = await QemuMachine.launch([
      ...memoryOptions(Memory.shared, MEGABYTES),
      ...['-cpu', 'max', '-smp', String(processors)],
      ...['-kernel', QEMU_KERNEL, '-initrd', initrd],
      ...['-append', [KERNEL_WORDS, 'quiet loglevel=5 nokaslr', ...words].join(' ')],
      ...['-serial', `file:${this.#console}`],
      ...['-chardev', `socket,id=line,path=${line}`, '-serial', 'chardev:line'],
      ...(kexec ? [...fileDrive('kernel', QEMU_KERNEL), ...fileDrive('initrd', initrd)] : []),
      ...options,
    ]);
    return this.#machine;
  }

  #take(text: string, socket: Socket): void {
    const [, kind = '', rest = ''] = /^(\S+) ?(.*)$/.exec(text) ?? [];
    if (kind === 'up') this.boots.push(rest);
    else if (kind === 'said') this.#said.push(rest);
    else if (kind === 'ok') this.outcomes.set(rest, { result: 'ok', why: '' });
    else if (kind === 'failed')
      this.outcomes.set(rest, { result: 'failed', why: this.#said.splice(0).join('\n') });
    else if (kind === 'skipped') {
      const [name = '', why = ''] = rest.split(/: (.*)/);
      this.outcomes.set(name, { result: 'skipped', why });
    } else if (kind === 'host') void this.#serve(rest, socket);
  }

  async #serve(what: string, socket: Socket): Promise<void> {
    let answer = 'done';
    try {
      const service = this.#options.host?.[what];
      if (service === undefined || this.#machine === undefined)
        throw new Error(`this test has no service ${what}`);
      await service(this.#machine);
    } catch (error) {
      answer = (error as Error).message.replaceAll('\n', ' ');
    }
    socket.write(`${answer}\n`);
  }
}

/** What is in the initramfs of this guest alone. */
function ownFiles(script: string, folder: string | undefined): Buffer {
  const archive = new CpioArchive()
    .file('/init', readFileSync(join(__dirname, 'init.sh')), 0o755)
    .file('/lib.sh', readFileSync(join(__dirname, 'lib.sh')))
    .file('/run.sh', readFileSync(scriptFile(script)));
  if (folder !== undefined) archive.tree('/host', folder);
  return archive.finish();
}

/** A drive of QEMU's own that cannot be written. */
function fileDrive(name: string, file: string): string[] {
  const contents = { driver: 'file', 'node-name': name, filename: file, 'read-only': true };
  return ['-blockdev', JSON.stringify(contents), '-device', `virtio-blk-pci,drive=${name}`];
}
