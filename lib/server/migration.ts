// SPDX-License-Identifier: MIT
import {
  MigrationFlag,
  decodeMigDataReadRequest,
  decodeMigDataWriteRequest,
  encodeMigDataReadReply,
  migrationPath,
  type MigrationStateName,
} from '../protocol';
import { CommandError, Errno, type CommandReply } from '../transport';
import type { MigrationModel, MigrationSink } from './device-model';
import type { ModelCall } from './model-calls';

/**
 * The migration state machine of a served device (vfio-user, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE). It outlives clients:
 * a device that failed stays so until it is reset.
 */
export class Migration {
  readonly #model: MigrationModel;
  #state: MigrationStateName = 'running';
  #source: SavedData | null = null;
  #sink: MigrationSink | null = null;

  constructor(model: MigrationModel) {
    this.#model = model;
  }

  get state(): MigrationStateName {
    return this.#state;
  }

  /** `MigrationFlag` bits. */
  get flags(): number {
    return MigrationFlag.stopCopy | (this.#model.preCopy === true ? MigrationFlag.preCopy : 0);
  }

  /**
   * Goes to a state, by the shortest legal way.
   *
   * @throws CommandError EINVAL when there is no such way; what the model throws, see {@link MigrationModel.stateChanged}
   */
  async setState(target: MigrationStateName, call: ModelCall): Promise<void> {
    const path = migrationPath(this.#state, target, this.#model.preCopy === true);
    if (path === undefined)
      throw new CommandError(Errno.EINVAL, `no transition leads from ${this.#state} to ${target}`);
    for (const next of path) await this.#step(next, call);
  }

  /**
   * Serves a MIG_DATA_READ (vfio-user, VFIO_USER_MIG_DATA_READ): gives as many bytes as were asked for, fewer only when
   * there are no more.
   */
  async read(payload: Uint8Array, maxTransfer: number, call: ModelCall): Promise<CommandReply> {
    const { size } = decodeMigDataReadRequest(payload, maxTransfer);
    const source = this.#source;
    if (source === null)
      throw new CommandError(Errno.EINVAL, `migration data cannot be read in state ${this.#state}`);
    const data = new Uint8Array(size);
    const count = await call(() => source.read(data));
    return { payload: encodeMigDataReadReply(count), data: data.subarray(0, count) };
  }

  /**
   * Serves a MIG_DATA_WRITE (vfio-user, VFIO_USER_MIG_DATA_WRITE). A device that does not take its state is in `error`
   * afterwards.
   */
  async write(payload: Uint8Array, maxTransfer: number, call: ModelCall): Promise<void> {
    const data = decodeMigDataWriteRequest(payload, maxTransfer);
    const sink = this.#sink;
    if (sink === null)
      throw new CommandError(Errno.EINVAL, `migration data cannot be written in state ${this.#state}`);
    await this.#orFail(async () => call(() => sink.write(data)), call);
  }

  /** The device has been reset: it runs (vfio-user, "Direct State Transitions"). */
  async wasReset(call: ModelCall): Promise<void> {
    const from = this.#state;
    this.#state = 'running';
    await this.#endAnyhow(call);
    if (from !== 'running')
      await this.#orFail(async () => call(() => this.#model.stateChanged?.(from, 'running')), call);
  }

  /**
   * The client is gone. A device that it had stopped runs again, for the next one; one that it was loading has half a
   * state, and failed.
   */
  async clientGone(call: ModelCall): Promise<void> {
    if (this.#state === 'resuming') {
      this.#sink = null;
      this.#state = 'error';
    } else if (this.#state !== 'error') await this.setState('running', call);
  }

  async #step(to: MigrationStateName, call: ModelCall): Promise<void> {
    const from = this.#state;
    const sink = this.#sink;
    if (sink !== null) {
      this.#sink = null;
      await this.#orFail(async () => call(() => sink.finish()), call);
    }
    try {
      await this.#change(from, to, call);
    } catch (error) {
      if (sink !== null) this.#state = 'error';
      throw error;
    }
    await this.#orFail(
      async () =>
        call(async () => {
          // The rest of a chunk that was read in part belongs to the stream; what the model would save next does not.
          const rest = to === 'stopCopy' ? this.#source?.rest : undefined;
          await this.#end();
          if (to === 'preCopy' || to === 'stopCopy') this.#source = new SavedData(this.#model.save(to), rest);
          else if (to === 'resuming') this.#sink = this.#model.load();
        }),
      call,
    );
    this.#state = to;
  }

  /**
   * Tells the model of a transition. A `CommandError` of the model is a refusal. `call` turns any other error into one too,
   * so it is looked at before.
   */
  async #change(from: MigrationStateName, to: MigrationStateName, call: ModelCall): Promise<void> {
    const outcome = { failed: false };
    try {
      await call(async () => {
        try {
          await this.#model.stateChanged?.(from, to);
        } catch (error) {
          outcome.failed = !(error instanceof CommandError);
          throw error;
        }
      });
    } catch (error) {
      if (outcome.failed) await this.#fail(call);
      throw error;
    }
  }

  async #orFail(work: () => Promise<void>, call: ModelCall): Promise<void> {
    try {
      await work();
    } catch (error) {
      await this.#fail(call);
      throw error;
    }
  }

  async #fail(call: ModelCall): Promise<void> {
    this.#state = 'error';
    await this.#endAnyhow(call);
  }

  /** Ends the transfer when there is an error to tell already: one of the model's own is reported, and that is all. */
  async #endAnyhow(call: ModelCall): Promise<void> {
    try {
      await call(() => this.#end());
    } catch {
      // Reported by the call.
    }
  }

  /** Ends the transfer of data, if there is one. */
  async #end(): Promise<void> {
    const source = this.#source;
    this.#source = null;
    this.#sink = null;
    await source?.end();
  }
}

/** Migration data that a model saves in chunks of its own, read in pieces that the client asks for. */
class SavedData {
  readonly #chunks: Iterator<Uint8Array> | AsyncIterator<Uint8Array>;
  #chunk: Uint8Array;
  #done = false;
  #failure: { readonly error: unknown } | null = null;

  /** @param before bytes that come first */
  constructor(
    chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    before: Uint8Array = new Uint8Array(0),
  ) {
    this.#chunks =
      Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]();
    this.#chunk = before;
  }

  /** What is left of the chunk that was read last. */
  get rest(): Uint8Array {
    return this.#chunk;
  }

  /** Fills `into`; returns the number of bytes, fewer only when there are no more. Once it has failed it stays so. */
  async read(into: Uint8Array): Promise<number> {
    if (this.#failure !== null) throw this.#failure.error;
    let count = 0;
    while (count < into.byteLength) {
      if (this.#chunk.byteLength === 0 && !(await this.#next())) break;
      const part = this.#chunk.subarray(0, into.byteLength - count);
      into.set(part, count);
      this.#chunk = this.#chunk.subarray(part.byteLength);
      count += part.byteLength;
    }
    return count;
  }

  /** Tells the model that no more is read. */
  async end(): Promise<void> {
    if (this.#done) return;
    this.#done = true;
    await this.#chunks.return?.();
  }

  async #next(): Promise<boolean> {
    if (this.#done) return false;
    try {
      const next = await this.#chunks.next();
      if (next.done === true) this.#done = true;
      else this.#chunk = next.value;
      return !this.#done;
    } catch (error) {
      this.#done = true;
      this.#failure = { error };
      throw error;
    }
  }
}
