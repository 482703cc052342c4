// SPDX-License-Identifier: MIT
import { createInterface } from 'node:readline';

interface Message {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
}

/** Somebody who waits for a message: for an event by its name, or for the next answer. */
interface Waiting {
  readonly event: string | undefined;
  resolve(message: Message): void;
  reject(error: Error): void;
}

/** QEMU's machine protocol: commands that are answered in their order, and events (QEMU, docs/interop/qmp-spec.rst). */
export class Qmp {
  readonly #output: NodeJS.WritableStream;
  readonly #whyEnded: () => string;
  readonly #waiting: Waiting[] = [];
  readonly #greeting: Promise<Message>;
  #ended = false;

  /** @param whyEnded what QEMU complained of, for the error of a command that it does not answer */
  constructor(input: NodeJS.ReadableStream, output: NodeJS.WritableStream, whyEnded: () => string) {
    this.#output = output;
    this.#whyEnded = whyEnded;
    this.#greeting = this.#next();
    // Not every machine is asked for anything.
    this.#greeting.catch(() => {});
    createInterface({ input })
      .on('line', (line) => {
        this.#take(JSON.parse(line) as Message);
      })
      .once('close', () => {
        this.#ended = true;
        for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#error());
      });
  }

  /** Waits until it takes commands. */
  async ready(): Promise<void> {
    await this.#greeting;
    await this.execute('qmp_capabilities');
  }

  /**
   * Executes a command.
   * @throws Error that names it, with QEMU's description
   */
  async execute(command: string, args: object = {}): Promise<unknown> {
    const answered = this.#next();
    if (!this.#ended) this.#output.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const { error, return: value } = await answered;
    if (error !== undefined) throw new Error(`${command}: ${error.desc}`);
    return value;
  }

  /** Waits for the next event of this name. */
  async event(name: string): Promise<void> {
    await this.#next(name);
  }

  #next(event?: string): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (this.#ended) reject(this.#error());
      else this.#waiting.push({ event, resolve, reject });
    });
  }

  #take(message: Message): void {
    const index = this.#waiting.findIndex(({ event }) => event === message.event);
    if (index >= 0) this.#waiting.splice(index, 1)[0]?.resolve(message);
  }

  #error(): Error {
    return new Error(`QEMU has ended: ${this.#whyEnded()}`);
  }
}
