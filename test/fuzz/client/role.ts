// SPDX-License-Identifier: MIT
/** The client is fuzzed: by a server whose replies, descriptors and commands are generated. */
import { Command, commandName } from '../../../lib/protocol';
import { CALL_NAMES, SYNC_CALL_NAMES } from './calls';
import { Descriptors, MEMORY_BYTES } from '../descriptors';
import { HonestDevice } from './honest-device';
import { type Fixture, type Role, type Step, type Tally } from '../role';
import { turns } from '../waiting';
import { FuzzedClient } from './session';
import { SPOILT, generate, type ClientStep } from './steps';

class ClientFixture implements Fixture {
  readonly #tally: Tally;
  readonly #descriptors = new Descriptors();
  readonly #honest = new HonestDevice();

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  async run(steps: readonly Step[]): Promise<void> {
    this.#descriptors.resize(MEMORY_BYTES);
    const session = new FuzzedClient(this.#honest, this.#descriptors, this.#tally);
    this.#tally.connections++;
    try {
      for (const step of steps as readonly ClientStep[]) await session.step(step);
      await session.finish();
    } finally {
      await session.close();
    }
  }

  rest(): Promise<void> {
    return turns(3);
  }

  close(): Promise<void> {
    this.#honest.close();
    this.#descriptors.close();
    return Promise.resolve();
  }
}

const asked = Object.entries(Command)
  .filter(([, code]) => code !== Command.dmaRead && code !== Command.dmaWrite)
  .map(([, code]) => `${commandName(code)} asked`);

export const clientRole: Role = {
  name: 'client',
  wanted: [
    ...asked,
    ...CALL_NAMES.map((name) => `${name} ok`),
    ...SYNC_CALL_NAMES.map((name) => `${name} ok`),
    ...SPOILT.map((how) => `spoilt: ${how}`),
    ...[
      'DMA_READ ok',
      'DMA_WRITE ok',
      'DMA_READ EFAULT',
      'DMA_WRITE EFAULT',
      'DMA_READ EINVAL',
      'ioregionfd command',
    ],
    ...[
      'REMOTE',
      'PROTOCOL',
      'TIMEOUT',
      'DISCONNECTED',
      'CLOSED',
      'VERSION',
      'DMA',
      'MIGRATION',
      'PCI',
      'UNSUPPORTED',
    ].map((code) => (code === 'REMOTE' ? 'remote EPERM' : `fails with ERR_VFIO_USER_${code}`)),
    'well after the session',
  ],
  generate,
  open: (tally) => Promise.resolve(new ClientFixture(tally)),
};
