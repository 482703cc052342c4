// SPDX-License-Identifier: MIT
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/**
 * The processor's part, played by a test: accesses of memory and ports, and the interrupt lines that arrive, by QEMU's qtest
 * protocol (docs/devel/testing/qtest.rst, system/qtest.c).
 */
export class Qtest {
  /** Lines of the I/O APIC that are high. */
  readonly high = new Set<number>();
  /** How often lines went up. */
  raised = 0;
  readonly #socket: Socket;
  readonly #waiting: ((answer: string) => void)[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (line) => {
      const [what, change, number] = line.split(' ');
      if (what !== 'IRQ') this.#waiting.shift()?.(line);
      else if (change === 'raise') {
        this.high.add(Number(number));
        this.raised++;
      } else this.high.delete(Number(number));
    });
  }

  /** Options of a machine that can be connected to at a path. */
  static options(path: string): string[] {
    return ['-qtest', `unix:${path},server=on,wait=off`, '-qtest-log', 'none'];
  }

  /** Connects, and takes the interrupts of the I/O APIC from the machine. */
  static async connect(path: string): Promise<Qtest> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve).once('error', reject);
    });
    const qtest = new Qtest(socket);
    await qtest.#ask('irq_intercept_in ioapic');
    return qtest;
  }

  async read32(address: number): Promise<number> {
    return Number((await this.#ask(`readl 0x${address.toString(16)}`)).split(' ')[1]);
  }

  async write32(address: number, value: number): Promise<void> {
    await this.#ask(`writel 0x${address.toString(16)} 0x${value.toString(16)}`);
  }

  close(): void {
    this.#socket.destroy();
  }

  async #ask(command: string): Promise<string> {
    const answer = new Promise<string>((resolve) => this.#waiting.push(resolve));
    this.#socket.write(`${command}\n`);
    const text = await answer;
    if (!text.startsWith('OK')) throw new Error(`${command}: ${text}`);
    return text;
  }
}
