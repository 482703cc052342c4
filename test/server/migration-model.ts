// SPDX-License-Identifier: MIT
import type { MigrationModel, MigrationSink, MigrationStateName } from '../../lib/server';
import { TestModel } from './support';

/** A device whose state is a string of bytes, and which remembers what the server asked of it. */
export class MigratingModel extends TestModel {
  /** The state: saved in chunks of `chunk` bytes, replaced by what is loaded. */
  data: Uint8Array;
  /** What PRE_COPY gives, before {@link data}. */
  early: Uint8Array = new Uint8Array(0);
  chunk = 1000;
  readonly states: string[] = [];
  /** Thrown by what is named, once. */
  readonly failures: Partial<Record<'save' | 'load' | 'write' | 'finish' | MigrationStateName, Error>> = {};
  readonly migration: MigrationModel;

  constructor(data: Uint8Array = new Uint8Array(0), preCopy = true) {
    super();
    this.data = data;
    this.migration = {
      preCopy,
      save: (mode) => (mode === 'preCopy' ? this.#chunks(this.early) : this.#later(this.data)),
      load: () => this.#load(),
      stateChanged: async (from, to) => {
        await Promise.resolve();
        this.#failOn(to);
        this.states.push(`${from} > ${to}`);
      },
    };
  }

  *#chunks(data: Uint8Array): Generator<Uint8Array> {
    try {
      for (let at = 0; at < data.length; at += this.chunk) {
        yield data.subarray(at, at + this.chunk);
        this.#failOn('save');
      }
    } finally {
      this.states.push('end');
    }
  }

  async *#later(data: Uint8Array): AsyncGenerator<Uint8Array> {
    for (const chunk of this.#chunks(data)) {
      await Promise.resolve();
      yield chunk;
    }
  }

  #load(): MigrationSink {
    this.#failOn('load');
    const chunks: Uint8Array[] = [];
    return {
      write: async (chunk) => {
        chunks.push(chunk.slice());
        await Promise.resolve();
        this.#failOn('write');
      },
      finish: () => {
        this.#failOn('finish');
        this.data = new Uint8Array(Buffer.concat(chunks));
      },
    };
  }

  #failOn(what: 'save' | 'load' | 'write' | 'finish' | MigrationStateName): void {
    const error = this.failures[what];
    Reflect.deleteProperty(this.failures, what);
    if (error !== undefined) throw error;
  }
}

/** Bytes that tell where they are. */
export function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + (index >>> 8)) & 0xff);
}
