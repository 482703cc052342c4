// SPDX-License-Identifier: MIT
import { EventEmitter, once } from 'node:events';
import { appendFileSync, copyFileSync, readFileSync, statSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import type { Scratch } from '../cli/run-cli';
import { KERNEL_WORDS, Memory, QemuMachine, memoryOptions } from '../support/qemu-machine';
import { CpioArchive } from './cpio';
import { toolsImage } from './image';

/** Kernel, what is in every initramfs, and a Debian with the tools, which prepare.ts has named. */
const { QEMU_KERNEL = '', GUEST_IMAGE = '', GUEST_ROOT = '' } = process.env;

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
  /** Its kernel, which has all modules built in; that of all guests when left out. */
  readonly kernel?: string;
  /** More words for the kernel. */
  readonly words?: readonly string[];
  /** A folder of this machine that is in the guest too, as /host. */
  readonly folder?: string;
  /** Processors; 1 when left out, as two that are emulated wait for each other more than they do. */
  readonly processors?: number;
  /** Whether it may reboot, which ends other guests. Its kernel and its initramfs are two more drives, for kexec. */
  readonly reboots?: boolean;
  /** Whether it has all tools, and not those alone that its script names. */
  readonly allTools?: boolean;
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

/**
 * A guest that has said nothing for so long, neither on its console nor on its line, hangs. How long all of it takes depends on
 * what else the machine does, so there is no limit to that.
 */
const SILENCE_SECONDS = 180;

/** A machine whose Linux runs a script, and tells how its checks end. */
export class Guest {
  /** What init has said at each boot: uptime and version. */
  readonly boots: string[] = [];
  /** What its script wants to be printed. */
  readonly notes: string[] = [];
  readonly #scratch: Scratch;
  readonly #options: GuestOptions;
  readonly #console: string;
  readonly #line: Server;
  readonly #outcomes = new Map<string, Outcome>();
  readonly #news = new EventEmitter<{ news: [] }>();
  #machine: QemuMachine | undefined;
  #said: string[] = [];
  /** The check that it is at. */
  #current = 'its boot';
  #heard = performance.now();
  #consoleSize = 0;
  #ended = false;
  #trouble: string | undefined;

  constructor(scratch: Scratch, options: GuestOptions) {
    this.#scratch = scratch;
    this.#options = options;
    this.#console = scratch.file('console');
    this.#line = createServer((socket) => {
      // What a machine that is killed leaves behind is of no interest.
      socket.on('error', () => {});
      createInterface({ input: socket }).on('line', (text) => {
        this.#heard = performance.now();
        this.#take(text, socket);
      });
    });
  }

  /** Starts the machine. */
  async start(): Promise<void> {
    const machine = await this.#boot();
    const watch = setInterval(() => {
      this.#listen(machine);
    }, 1000);
    void machine.ended.then((code) => {
      clearInterval(watch);
      if (code !== 0)
        this.#trouble ??= `the machine ended with code ${code ?? 'of a signal'} at ${this.#current}. ${machine.stderr}`;
      this.#ended = true;
      this.#news.emit('news');
    });
  }

  /**
   * How a check ends, as soon as it has.
   *
   * @throws Error with what went wrong and the last lines of the console, when the guest has ended without it
   */
  async outcome(check: string): Promise<Outcome> {
    for (;;) {
      const outcome = this.#outcomes.get(check);
      if (outcome !== undefined) return outcome;
      if (this.#ended) throw this.#failure(`the guest did not come to it`);
      await once(this.#news, 'news');
    }
  }

  /**
   * Waits until it is off.
   *
   * @throws Error when it did not power off by itself
   */
  async off(): Promise<void> {
    while (!this.#ended) await once(this.#news, 'news');
    if (this.#trouble !== undefined) throw this.#failure('the guest did not power off');
  }

  /** Ends it whatever it does. */
  async close(): Promise<void> {
    await this.#machine?.kill();
    this.#line.close();
  }

  #failure(what: string): Error {
    const console = readFileSync(this.#console, 'latin1').replaceAll('\r', '').split('\n').slice(-40);
    return new Error(`${what}: ${this.#trouble ?? 'it is off'}\n${console.join('\n')}`);
  }

  /** Ends a machine that says nothing any more. */
  #listen(machine: QemuMachine): void {
    const { size } = statSync(this.#console);
    if (size !== this.#consoleSize) this.#heard = performance.now();
    this.#consoleSize = size;
    if (performance.now() - this.#heard < SILENCE_SECONDS * 1000) return;
    this.#trouble = `it has said nothing for ${SILENCE_SECONDS} s, at ${this.#current}`;
    void machine.kill();
  }

  async #boot(): Promise<QemuMachine> {
    const { options, kernel = QEMU_KERNEL, words = [], processors = 1, reboots = false } = this.#options;
    const [line, initrd] = [this.#scratch.file('line'), this.#scratch.file('initrd')];
    await new Promise<void>((resolve) => this.#line.listen(line, resolve));
    copyFileSync(GUEST_IMAGE, initrd);
    appendFileSync(initrd, ownFiles(this.#options));
    this.#machine = await QemuMachine.launch([
      ...memoryOptions(Memory.shared, MEGABYTES),
      ...['-cpu', 'max', '-smp', String(processors)],
      ...['-kernel', kernel, '-initrd', initrd],
      ...['-append', [KERNEL_WORDS, 'quiet loglevel=5 nokaslr', ...words].join(' ')],
      ...['-serial', `file:${this.#console}`],
      ...['-chardev', `socket,id=line,path=${line}`, '-serial', 'chardev:line'],
      ...(reboots ? [...fileDrive('kernel', kernel), ...fileDrive('initrd', initrd)] : ['-no-reboot']),
      ...options,
    ]);
    return this.#machine;
  }

  #take(text: string, socket: Socket): void {
    const [, kind = '', rest = ''] = /^(\S+) ?(.*)$/.exec(text) ?? [];
    const [name = '', why = ''] = rest.split(/: (.*)/);
    if (kind === 'up') this.boots.push(rest);
    else if (kind === 'note') this.notes.push(rest);
    else if (kind === 'begin') this.#current = `the check '${rest}'`;
    else if (kind === 'said') this.#said.push(rest);
    else if (kind === 'ok') this.#end(rest, 'ok', '');
    else if (kind === 'failed') this.#end(rest, 'failed', this.#said.splice(0).join('\n'));
    else if (kind === 'skipped') this.#end(name, 'skipped', why);
    else if (kind === 'host') void this.#serve(rest, socket);
  }

  #end(check: string, result: Outcome['result'], why: string): void {
    this.#current = `what follows '${check}'`;
    this.#outcomes.set(check, { result, why });
    this.#news.emit('news');
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
function ownFiles({ script, folder, allTools = false, files }: GuestOptions): Buffer {
  const archive = new CpioArchive();
  const texts = ['init.sh', 'lib.sh', 'vfio.sh', `scripts/${script}.sh`].map((name) => {
    const text = readFileSync(join(__dirname, name), 'utf8');
    const path = name === 'init.sh' ? 'init' : name.startsWith('scripts/') ? 'run.sh' : name;
    archive.file(`/${path}`, text, 0o755);
    return text;
  });
  if (folder !== undefined) archive.tree('/host', folder);
  return Buffer.concat([
    toolsImage(GUEST_ROOT, allTools ? undefined : texts),
    archive.finish(),
    ...(files === undefined ? [] : [files]),
  ]);
}

/** A drive of QEMU's own that cannot be written. */
function fileDrive(name: string, file: string): string[] {
  const contents = { driver: 'file', 'node-name': name, filename: file, 'read-only': true };
  return ['-blockdev', JSON.stringify(contents), '-device', `virtio-blk-pci,drive=${name}`];
}
