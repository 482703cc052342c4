// SPDX-License-Identifier: MIT
/** The emulated NVMe controller is fuzzed: by a host whose commands, doorbells, registers and mappings are generated. */
import { createBackend } from '../../../lib/nvme/backends';
import { NvmeControllerModel } from '../../../lib/nvme/controller';
import { AdminOpcode, NvmOpcode } from '../../../lib/nvme/spec';
import type { Client } from '../../../lib/server';
import { DATA } from './memory';
import { NAMESPACE_BLOCKS } from './commands';
import { Violation, type Fixture, type Role, type Step, type Tally } from '../role';
import { turns } from '../waiting';
import { FuzzedHost, OPCODES, opcodeLabel } from './host';
import { generate, type HostStep } from './steps';

const SERIAL = 'FUZZ';

class ControllerFixture implements Fixture {
  readonly #tally: Tally;
  readonly #model: NvmeControllerModel;
  readonly #faults: string[] = [];

  constructor(tally: Tally) {
    this.#tally = tally;
    this.#model = new NvmeControllerModel({
      backend: createBackend({ kind: 'memory', size: NAMESPACE_BLOCKS * 512 }),
      serial: SERIAL,
      queuePairs: 4,
      maxQueueEntries: 64,
      // There are no other processors that it could wait for.
      pollSlice: 0,
      onFault: (reason) => {
        tally.see(`fault: ${reason.replace(/\d+/g, 'N').slice(0, 40)}`);
        if (reason.startsWith('Processing failed') || reason.includes('The completion of a command'))
          this.#faults.push(reason);
      },
    });
  }

  async run(steps: readonly Step[]): Promise<void> {
    const host = new FuzzedHost(this.#model, this.#tally);
    const client: Client = {
      name: 'fuzzer',
      memory: host.memory,
      setInterrupt: () => true,
      trigger: () => true,
      disconnect: () => undefined,
      unplug: () => undefined,
    };
    this.#model.attach(client);
    this.#tally.connections++;
    try {
      for (const step of steps as readonly HostStep[]) await host.step(step);
      await isWell(host);
    } finally {
      this.#model.detach();
      await this.#model.reset();
      host.memory.close();
    }
    const [fault] = this.#faults.splice(0);
    if (fault !== undefined) throw new Violation(`the controller failed: ${fault}`);
  }

  rest(): Promise<void> {
    return turns(2);
  }

  close(): Promise<void> {
    this.#model.close();
    return Promise.resolve();
  }
}

/** After a reset, what is right is served rightly. */
async function isWell(host: FuzzedHost): Promise<void> {
  host.memory.honest = true;
  await host.bringUp([16, 16]);
  const words = new Uint32Array(16);
  words[0] = AdminOpcode.identify;
  words[6] = DATA;
  words[10] = 1;
  const identified = await host.run(0, words);
  const serial = Buffer.from(host.memory.bytes(DATA + 4, SERIAL.length)).toString();
  if (identified !== 0 || serial !== SERIAL)
    throw new Violation(`after the session, Identify gives status ${identified} and serial number ${serial}`);
  const pattern = host.memory.bytes(DATA, 512);
  pattern.fill(0xa5);
  for (const [opcode, address] of [
    [NvmOpcode.write, DATA],
    [NvmOpcode.read, DATA + 4096],
  ] as const) {
    const io = new Uint32Array(16);
    io[0] = opcode;
    io[1] = 1;
    io[6] = address;
    io[10] = 77;
    const status = await host.run(1, io);
    if (status !== 0) throw new Violation(`after the session, opcode ${opcode} gives status ${status}`);
  }
  if (!Buffer.from(host.memory.bytes(DATA + 4096, 512)).equals(pattern))
    throw new Violation('after the session, a block does not read as it was written');
}

export const nvmeControllerRole: Role = {
  name: 'nvme-controller',
  wanted: [
    ...OPCODES.admin.map((opcode) => opcodeLabel(0, opcode)),
    ...OPCODES['I/O'].map((opcode) => opcodeLabel(1, opcode)),
    // Statuses of NVMe base 2.0, 3.3.3.2, and NVM command set 1.0 that the controller knows.
    ...[
      '0/00',
      '0/01',
      '0/02',
      '0/04',
      '0/0b',
      '0/13',
      '0/80',
      '1/01',
      '1/02',
      '1/05',
      '1/08',
      '1/09',
      '1/0c',
      '2/85',
    ].map((status) => `status ${status}`),
    'queue created',
    'queue deleted',
  ],
  generate,
  open: (tally) => Promise.resolve(new ControllerFixture(tally)),
};
