// SPDX-License-Identifier: MIT
import { Readable, Writable } from 'node:stream';
import type { MigrationStateName } from '../protocol';

/** Options of a {@link MigrationReadStream}. */
export interface MigrationReadOptions {
  /** Read what there is while the device runs, then stop it and read the rest. Default false. */
  readonly preCopy?: boolean;
  /** Bytes that are read ahead of the consumer, and asked for at a time. Default 64 KiB. */
  readonly highWaterMark?: number;
}

/** Options of a {@link MigrationWriteStream}. */
export interface MigrationWriteOptions {
  /** Start the device when its state is complete; false leaves it in `stop`. Default true. */
  readonly resume?: boolean;
  /** Bytes that wait for the device before the producer is told to wait. Default 64 KiB. */
  readonly highWaterMark?: number;
}

/** The device, as the stream of one transfer sees it. */
export interface MigrationPort {
  begin(preCopy: boolean): Promise<'running' | 'stop'>;
  setState(target: MigrationStateName): Promise<void>;
  restore(state: MigrationStateName): Promise<void>;
  abandonLoad(): Promise<void>;
  readData(size: number): Promise<Uint8Array>;
  writeData(data: Uint8Array): Promise<void>;
  /** The device is not needed any more. */
  end(): void;
}

type Callback = (error?: Error | null) => void;

const HIGH_WATER = 64 << 10;

/** A stream of the state of a device, as bytes. Made by `DeviceMigration.createReadStream`. */
export class MigrationReadStream extends Readable {
  readonly #port: MigrationPort;
  readonly #chunk: number;
  #state: 'preCopy' | 'stopCopy';
  /** Where the device was; undefined when there is nothing to bring back. */
  #before: 'running' | 'stop' | undefined;
  #lastPreCopy = false;
  #work: Promise<void> = Promise.resolve();

  /** @param maxTransfer most bytes of one message. @internal */
  constructor(port: MigrationPort, maxTransfer: number, options: MigrationReadOptions) {
    const { preCopy = false, highWaterMark = HIGH_WATER } = options;
    super({ highWaterMark });
    this.#port = port;
    this.#chunk = Math.max(1, Math.min(highWaterMark, maxTransfer));
    this.#state = preCopy ? 'preCopy' : 'stopCopy';
  }

  /** Bytes read so far. */
  bytesRead = 0;

  /** Ends PRE_COPY after the read in flight: for a device that changes faster than it is read, whose PRE_COPY has no end. */
  stopPreCopy(): void {
    this.#lastPreCopy = true;
  }

  /** @internal */
  override _construct(callback: Callback): void {
    this.#run(async () => {
      this.#before = await this.#port.begin(this.#state === 'preCopy');
      await this.#port.setState(this.#state);
    }, callback);
  }

  /** @internal */
  override _read(): void {
    this.#run(
      async () => {
        for (;;) {
          const data = await this.#port.readData(this.#chunk);
          this.bytesRead += data.byteLength;
          // Fewer than asked for: there are no more (vfio-user, VFIO_USER_MIG_DATA_READ, "Reply").
          const last = data.byteLength < this.#chunk;
          if (this.#state === 'preCopy' && (last || this.#lastPreCopy)) {
            await this.#port.setState('stopCopy');
            this.#state = 'stopCopy';
          } else if (last) {
            await this.#port.setState('stop');
            this.#before = undefined;
            this.#port.end();
            if (data.byteLength > 0) this.push(data);
            this.push(null);
            return;
          }
          if (data.byteLength > 0) {
            this.push(data);
            return;
          }
        }
      },
      (error) => {
        if (error) this.destroy(error);
      },
    );
  }

  /** @internal */
  override _destroy(error: Error | null, callback: Callback): void {
    void this.#work.then(() => {
      const before = this.#before;
      this.#before = undefined;
      this.#port.end();
      finish(before === undefined ? Promise.resolve() : this.#port.restore(before), error, callback);
    });
  }

  #run(work: () => Promise<void>, callback: Callback): void {
    this.#work = settle(work(), callback);
  }
}

/** Takes the state of a device, as bytes. Made by `DeviceMigration.createWriteStream`. */
export class MigrationWriteStream extends Writable {
  readonly #port: MigrationPort;
  readonly #chunk: number;
  readonly #resume: boolean;
  #loading = false;
  #work: Promise<void> = Promise.resolve();

  /** @param maxTransfer most bytes of one message. @internal */
  constructor(port: MigrationPort, maxTransfer: number, options: MigrationWriteOptions) {
    const { resume = true, highWaterMark = HIGH_WATER } = options;
    super({ highWaterMark, decodeStrings: true });
    this.#port = port;
    this.#chunk = maxTransfer;
    this.#resume = resume;
  }

  /** Bytes that the device has taken. */
  bytesWritten = 0;

  /** @internal */
  override _construct(callback: Callback): void {
    this.#run(async () => {
      await this.#port.begin(false);
      this.#loading = true;
      await this.#port.setState('resuming');
    }, callback);
  }

  /** @internal */
  override _write(chunk: Uint8Array, _encoding: string, callback: Callback): void {
    this.#run(async () => {
      for (let at = 0; at < chunk.byteLength; at += this.#chunk) {
        const part = chunk.subarray(at, at + this.#chunk);
        await this.#port.writeData(part);
        this.bytesWritten += part.byteLength;
      }
    }, callback);
  }

  /** @internal */
  override _final(callback: Callback): void {
    this.#run(async () => {
      // The server checks the state that it got on this transition (vfio-user, "Direct State Transitions").
      await this.#port.setState('stop');
      this.#loading = false;
      if (this.#resume) await this.#port.setState('running');
      this.#port.end();
    }, callback);
  }

  /** @internal */
  override _destroy(error: Error | null, callback: Callback): void {
    void this.#work.then(() => {
      const loading = this.#loading;
      this.#loading = false;
      this.#port.end();
      finish(loading ? this.#port.abandonLoad() : Promise.resolve(), error, callback);
    });
  }

  #run(work: () => Promise<void>, callback: Callback): void {
    this.#work = settle(work(), callback);
  }
}

/** Calls back with the outcome; the promise that it returns never rejects. */
function settle(work: Promise<void>, callback: Callback): Promise<void> {
  return work.then(
    () => {
      callback();
    },
    (error: unknown) => {
      callback(error as Error);
    },
  );
}

/** Calls back with the error that destroyed the stream, or with that of the clean-up when there is no other. */
function finish(work: Promise<void>, error: Error | null, callback: Callback): void {
  void settle(work, (problem) => {
    callback(error ?? problem ?? null);
  });
}
