// SPDX-License-Identifier: MIT
/** The server is fuzzed: by a client whose messages, descriptors and answers are generated. */
import { VfioUserError } from '../../../lib/errors';
import { Command, commandName } from '../../../lib/protocol';
import { CommandError, serve, type Server } from '../../../lib/server';
import { Descriptors, MEMORY_BYTES } from '../descriptors';
import { Violation, type Fixture, type Role, type Step, type Tally } from '../role';
import { DEVICE, EverythingModel, MODEL_FAILURE, VENDOR } from './model';
import { turns, waitFor } from '../waiting';
import { FuzzedSession } from './session';
import { ANSWERS, generate, type ServerStep } from './steps';

/** Errors that the server may tell its owner of: each is the client's doing, or the model's. */
const EXPECTED_REPORTS: readonly string[] = [
  'ERR_VFIO_USER_PROTOCOL',
  'ERR_VFIO_USER_MAPPING_LOST',
  'ERR_VFIO_USER_DMA',
  'ERR_VFIO_USER_REMOTE',
  'ERR_VFIO_USER_TIMEOUT',
  'ERR_VFIO_USER_DISCONNECTED',
  'ERR_VFIO_USER_CLOSED',
];

class ServerFixture implements Fixture {
  readonly #tally: Tally;
  readonly #descriptors = new Descriptors();
  readonly #model = new EverythingModel();
  #server: Server | null = null;
  readonly #faults: Violation[] = [];

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  async open(): Promise<this> {
    this.#server = await serve(`@vfio-user-fuzz-${process.pid}-${Math.random()}`, this.#model, {
      messageTimeout: 10,
      // A connection that has to end must not end by this.
      versionTimeout: Infinity,
      onError: (error) => {
        this.#report(error);
      },
    });
    return this;
  }

  async run(steps: readonly Step[]): Promise<void> {
    this.#descriptors.resize(MEMORY_BYTES);
    const server = this.#server as Server;
    const session = new FuzzedSession(server.path, this.#descriptors, this.#tally);
    this.#tally.connections++;
    try {
      for (const step of steps as readonly ServerStep[]) {
        await session.step(step);
        if (session.ended) break;
      }
      if (!session.ended) await session.settle();
      if (session.sound) await this.#isWell(session);
    } finally {
      session.close();
    }
    await this.rest();
    const [fault] = this.#faults.splice(0);
    if (fault !== undefined) throw fault;
  }

  async rest(): Promise<void> {
    await waitFor(() => this.#server?.client === null, 'the end of the client');
    await turns(2);
  }

  async close(): Promise<void> {
    await this.#server?.close();
    this.#model.close();
    this.#descriptors.close();
  }

  /** What is right is still served rightly, whatever came before. */
  async #isWell(session: FuzzedSession): Promise<void> {
    // Also ends a migration that failed.
    const reset = await session.ask(Command.deviceReset, new Uint8Array(0));
    const read = await session.ask(
      Command.regionRead,
      Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0),
    );
    if (reset?.errno !== 0)
      throw new Violation(`after the session, DEVICE_RESET gives errno ${reset?.errno}`);
    const ids = read?.payload.subarray(16) ?? new Uint8Array(0);
    if (!Buffer.from(ids).equals(Uint8Array.of(VENDOR & 0xff, VENDOR >> 8, DEVICE & 0xff, DEVICE >> 8)))
      throw new Violation(
        `after the session, vendor and device id read as ${Buffer.from(ids).toString('hex')} (errno ${read?.errno})`,
      );
  }

  #report(error: unknown): void {
    if (error instanceof VfioUserError && EXPECTED_REPORTS.includes(error.code)) {
      this.#tally.see(`reported ${error.code}`);
      return;
    }
    if (error instanceof CommandError || (error instanceof Error && error.message === MODEL_FAILURE)) return;
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#faults.push(new Violation(`the server reports what is no fault of its client: ${text}`));
  }
}

const served = Object.values(Command).filter((code) => code !== Command.dmaRead && code !== Command.dmaWrite);

export const serverRole: Role = {
  name: 'server',
  wanted: [
    ...served.map((code) => `${commandName(code)} ok`),
    ...served.map((code) => `${commandName(code)} EINVAL`),
    ...[
      'DMA_MAP EEXIST',
      'DMA_UNMAP ENOENT',
      'REGION_READ EIO',
      'REGION_READ EBUSY',
      'command unknown ENOTSUP',
    ],
    ...['DMA_READ', 'DMA_WRITE'].flatMap((name) => ANSWERS.map((how) => `${name} answered: ${how}`)),
    'ioregionfd command',
    'reported ERR_VFIO_USER_MAPPING_LOST',
  ],
  generate,
  open: (tally) => new ServerFixture(tally).open(),
};
