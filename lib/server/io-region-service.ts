// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { Socket, SocketWatcher } from '../native';
import {
  IOREGION_MESSAGE_SIZE,
  decodeIoRegionCommand,
  encodeIoRegionResponse,
  type IoRegionCommand,
  type U64,
} from '../protocol';
import type { Lane, LaneQueue, Turn } from '../transport';
import type { Eventually } from './model-calls';

/** The region that an {@link IoRegionService} serves parts of. Offsets and sizes are in bytes. */
export interface IoRegionTarget {
  /** Sub-regions by the user data of their commands. */
  readonly subRegions: ReadonlyMap<U64, { readonly offset: number; readonly size: number }>;
  /** What an access overlaps with. */
  lane(write: boolean): Lane;
  /** Reads into `data`, which is zeroed; throws, or rejects, to refuse. */
  read(offset: number, data: Uint8Array): Eventually<void>;
  write(offset: number, data: Uint8Array, posted: boolean): Eventually<void>;
}

/** A command under way. */
interface Operation {
  readonly command: IoRegionCommand;
  readonly offset: number;
  /** What is written, or what has been read: `width` bytes of the first 8. */
  readonly data: Uint8Array;
}

const NOTHING = new Uint8Array(0);
/** Commands served per readiness event, so that one peer cannot keep the event loop to itself. */
const COMMANDS_PER_EVENT = 64;

/**
 * The server's end of an ioregionfd: serves the commands that a client, or its KVM, sends there (vfio-user,
 * VFIO_USER_DEVICE_GET_REGION_IO_FDS). One command is under way at a time, and the next is not read before the response
 * has left, so that a peer cannot make us queue. Accesses take their turn among the messages of the client.
 *
 * A response has no place for an error: a read that the device refuses gives all ones, as on PCI. What no kernel would
 * send ends the service, and the sub-region is accessed by message.
 */
export class IoRegionService implements Turn {
  /** A socket keeps its own order; what else the client does meanwhile is not ordered against it. */
  readonly holdsOthers = false;
  lane: Lane | null = null;
  readonly #socket: Socket;
  readonly #watcher: SocketWatcher;
  readonly #target: IoRegionTarget;
  readonly #turns: LaneQueue;
  readonly #report: (error: VfioUserError) => void;
  readonly #input = new Uint8Array(IOREGION_MESSAGE_SIZE);
  #received = 0;
  #operation: Operation | null = null;
  #response: Uint8Array | null = null;
  #sent = 0;
  #closed = false;

  /**
   * @param socket is the service's from now on
   * @param report told of a peer that breaks the protocol
   */
  constructor(
    socket: Socket,
    target: IoRegionTarget,
    turns: LaneQueue,
    report: (error: VfioUserError) => void,
  ) {
    this.#socket = socket;
    this.#target = target;
    this.#turns = turns;
    this.#report = report;
    this.#watcher = socket.watch(() => {
      this.#onReady();
    });
  }

  /** A handler that is at work may finish; its response goes nowhere. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
  }

  /** Does the access, when its turn has come. */
  start(): boolean {
    const operation = this.#operation;
    if (this.#closed || operation === null) return false;
    const { command, offset, data } = operation;
    const part = data.subarray(0, command.width);
    let result;
    try {
      result = command.write
        ? this.#target.write(offset, part, !command.respond)
        : this.#target.read(offset, part);
    } catch {
      this.#answer(false);
      return false;
    }
    if (!(result instanceof Promise)) {
      this.#answer(true);
      return false;
    }
    const done = (succeeded: boolean): void => {
      this.#answer(succeeded);
      this.#turns.done(this);
    };
    result.then(
      () => {
        done(true);
      },
      () => {
        done(false);
      },
    );
    return true;
  }

  drop(): void {
    this.close();
  }

  #onReady(): void {
    try {
      for (let count = 0; count < COMMANDS_PER_EVENT && this.#isFree() && this.#receive(); count++)
        this.#begin(decodeIoRegionCommand(this.#input));
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Whether the next command may be read: there is none under way, and no response waits for the socket. */
  #isFree(): boolean {
    if (this.#closed) return false;
    const free = this.#operation === null && this.#flush();
    // A peer that waits for its response sends nothing meanwhile, so that this rarely changes anything.
    this.#watcher.setReadable(free);
    return free;
  }

  /** Whether a command is complete. */
  #receive(): boolean {
    const count = this.#socket.receive(this.#input, this.#received, IOREGION_MESSAGE_SIZE - this.#received);
    if (this.#socket.pendingFds > 0) throw protocolError('descriptors with an ioregionfd command');
    if (count < 0) this.close();
    if (count <= 0) return false;
    this.#received = (this.#received + count) % IOREGION_MESSAGE_SIZE;
    return this.#received === 0;
  }

  #begin(command: IoRegionCommand): void {
    const { userData, offset, width, write } = command;
    const place = this.#target.subRegions.get(userData);
    if (place === undefined)
      throw protocolError(`an ioregionfd command for user data ${userData}, which was not given`);
    // Size 0 stands for one register of any width.
    const end = place.size === 0 ? width : place.size;
    if (typeof offset !== 'number' || offset + width > end) {
      throw protocolError(
        `an ioregionfd command for ${width} bytes at ${offset} of a sub-region of ${place.size} bytes`,
      );
    }
    const data = new Uint8Array(8);
    if (write) new DataView(data.buffer).setBigUint64(0, command.data, true);
    this.#operation = { command, offset: place.offset + offset, data };
    this.lane = this.#target.lane(write);
    this.#turns.add(this);
  }

  #answer(succeeded: boolean): void {
    const operation = this.#operation;
    this.#operation = null;
    if (this.#closed || operation === null) return;
    const { command, data } = operation;
    if (command.respond) {
      if (!succeeded) data.fill(0xff, 0, command.width);
      this.#response = encodeIoRegionResponse(
        command.write ? 0n : new DataView(data.buffer).getBigUint64(0, true),
      );
      this.#sent = 0;
    }
    try {
      if (this.#flush()) this.#watcher.setReadable(true);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Whether the socket has taken all that we have to say. */
  #flush(): boolean {
    if (this.#response === null) return true;
    this.#sent += this.#socket.send(NOTHING, 0, this.#response, this.#sent, null);
    const done = this.#sent === IOREGION_MESSAGE_SIZE;
    if (done) this.#response = null;
    this.#watcher.setWritable(!done);
    return done;
  }

  #fail(error: unknown): void {
    if (this.#closed) return;
    this.close();
    // That a peer goes away is no error.
    if (error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_PROTOCOL') this.#report(error);
  }
}

function protocolError(problem: string): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_PROTOCOL', problem, { command: 'DEVICE_GET_REGION_IO_FDS' });
}
