// SPDX-License-Identifier: MIT
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { Qmp } from './qmp';

/** QEMU 10.1 or later (`qemu-system-x86_64`, or a script that executes it), from the environment. */
const BINARY = process.env['QEMU_BINARY'];
/** A kernel and an initramfs for the guest; interop/guest-drive.ts tells what it does. */
const KERNEL = process.env['QEMU_KERNEL'];
const INITRD = process.env['QEMU_INITRD'];

/** Why QEMU cannot run here; undefined when it can. */
export function whyNoQemu(): string | undefined {
  return whyNot('QEMU_BINARY', BINARY);
}

/** Why no guest can run here; undefined when one can. */
export function whyNoGuest(): string | undefined {
  return whyNoQemu() ?? whyNot('QEMU_KERNEL', KERNEL) ?? whyNot('QEMU_INITRD', INITRD);
}

function whyNot(name: string, path: string | undefined): string | undefined {
  if (path === undefined) return `${name} is not set`;
  return existsSync(path) ? undefined : `${name} is ${path}, which does not exist`;
}

/** A `describe` that is skipped, and says why, when there is a reason to. */
export function describeWith(why: string | undefined, title: string, tests: () => void): void {
  if (why === undefined) describe(title, tests);
  else describe.skip(`${title}: skipped, ${why}`, tests);
}

/** Option of a machine that starts no processor: what happens is what the tests ask for. */
export const STOPPED = '-S';

/**
 * What all kernels of guests are told. Linux looks at boot whether its timer ticks, for a time that it counts in loops of the
 * processor: on a busy machine that emulates one it may not tick within it, and Linux panics. Hence no_timer_check (Linux,
 * arch/x86/kernel/apic/io_apic.c, check_timer).
 */
export const KERNEL_WORDS = 'console=ttyS0 panic=-1 no_timer_check';

/** Options that boot the guest, with its console on `console`, a file, and more words for its kernel. */
export function guestOptions(console: string, ...words: string[]): string[] {
  return [
    '-kernel',
    KERNEL ?? '',
    '-initrd',
    INITRD ?? '',
    '-append',
    [KERNEL_WORDS, ...words].join(' '),
    '-serial',
    `file:${console}`,
  ];
}

/** Memory of a guest: as a file that is shared with the device, or QEMU's own. */
export const Memory = {
  shared: 'memory-backend-memfd,share=on',
  own: 'memory-backend-ram',
} as const;

/** A device of the machine, as `query-pci` of QMP tells it. */
export interface QemuPciDevice {
  readonly slot: number;
  readonly irq_pin: number;
  readonly class_info: { readonly class: number };
  readonly id: Readonly<Record<'vendor' | 'device' | 'subsystem' | 'subsystem-vendor', number>>;
  readonly regions: readonly { readonly bar: number; readonly size: number }[];
}

/** Slot of the device under test. */
const SLOT = 5;
const MEGABYTES = 256;
/** QEMU emulates the processor: hardware that virtualizes may not be there. */
const MACHINE = [
  ...['-accel', 'tcg,thread=multi', '-nodefaults', '-no-user-config'],
  ...['-display', 'none', '-qmp', 'stdio'],
];

/** Options that give a machine its memory, one of {@link Memory}. */
export function memoryOptions(memory: string, megabytes: number): string[] {
  const size = `${megabytes}M`;
  return ['-m', size, '-object', `${memory},id=mem,size=${size}`, '-machine', 'q35,memory-backend=mem'];
}

/** A QEMU that has vfio-user devices, and is talked to by QMP. */
export class QemuMachine {
  /** What it has complained of. */
  stderr = '';
  /** Exit code; null when it was killed. */
  readonly ended: Promise<number | null>;
  readonly qmp: Qmp;
  readonly #child: ChildProcess;

  private constructor(options: readonly string[]) {
    const child = spawn(BINARY ?? '', options, { stdio: 'pipe' });
    child.stderr.on('data', (text: Buffer) => (this.stderr += text.toString()));
    this.qmp = new Qmp(child.stdout, child.stdin, () => this.stderr);
    this.ended = once(child, 'close').then(() => child.exitCode);
    this.#child = child;
  }

  /**
   * Starts it with a device.
   * @param socket of the device's server
   * @param memory one of {@link Memory}
   * @throws Error with what it said when it does not start, which is when the device is refused
   */
  static start(socket: string, memory: string, ...options: string[]): Promise<QemuMachine> {
    return QemuMachine.launch([
      ...memoryOptions(memory, MEGABYTES),
      // A virtual IOMMU must be there before the devices behind it.
      ...options,
      ...['-device', JSON.stringify(vfioUserDevice(socket, { addr: `0x${SLOT.toString(16)}` }))],
    ]);
  }

  /**
   * Starts it with these options.
   * @throws Error with what it said when it does not start
   */
  static async launch(options: readonly string[]): Promise<QemuMachine> {
    const machine = new QemuMachine([...MACHINE, ...options]);
    await machine.qmp.ready();
    return machine;
  }

  /** Executes a command of QMP. */
  execute(command: string, args: object = {}): Promise<unknown> {
    return this.qmp.execute(command, args);
  }

  /** Takes a device away by its id, as soon as its guest has let it go. */
  async unplug(id: string): Promise<void> {
    const gone = this.qmp.event('DEVICE_DELETED');
    await this.execute('device_del', { id });
    await gone;
  }

  /** The device under test. */
  async device(): Promise<QemuPciDevice> {
    const [bus] = (await this.execute('query-pci')) as { devices: QemuPciDevice[] }[];
    const device = bus?.devices.find(({ slot }) => slot === SLOT);
    if (device === undefined) throw new Error('query-pci does not know the device');
    return device;
  }

  /** Writes a register of the device's configuration space, as a processor does by the ports CF8h and CFCh. */
  async writeConfig(offset: number, value: number): Promise<void> {
    await this.#monitor(`o /w 0xcf8 0x${(0x8000_0000 + (SLOT << 11) + offset).toString(16)}`);
    await this.#monitor(`o /w 0xcfc 0x${value.toString(16)}`);
  }

  /** Reads 32-bit words at a physical address: of the guest's memory, or of a BAR. */
  async words(address: number, count: number): Promise<number[]> {
    const text = await this.#monitor(`xp /${count}xw 0x${address.toString(16)}`);
    return [...text.matchAll(/ 0x([0-9a-f]{8})/g)].map(([, digits]) => parseInt(digits ?? '', 16));
  }

  /** Ends it as its user does. */
  async quit(): Promise<number | null> {
    await this.execute('quit');
    return this.ended;
  }

  /** Ends it whatever it does. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  /** A command of the human monitor. */
  async #monitor(line: string): Promise<string> {
    return String(await this.execute('human-monitor-command', { 'command-line': line }));
  }
}

/** A device that is served at a socket, with more properties, as `-device` takes it in JSON and `device_add` by QMP. */
export function vfioUserDevice(socket: string, properties: object = {}): object {
  return { driver: 'vfio-user-pci', socket: { type: 'unix', path: socket }, ...properties };
}
