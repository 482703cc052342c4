// SPDX-License-Identifier: MIT
import { parseSize } from '../bench/units';
import type { NvmeControllerModel, NvmeNamespaceInfo } from '../nvme/controller';
import type { FaultSpec } from '../nvme/faults';
import type { ControlCommand, ControlCommands } from './control-request';

/** What the commands act on. */
export interface ControlledNvme {
  readonly model: NvmeControllerModel;
  /** Adds a namespace that is written as in `--namespace`. Rejects with a UsageError when it makes no sense. */
  addNamespace(text: string): Promise<NvmeNamespaceInfo>;
  /** Removes a namespace. Rejects with what the model rejects with. */
  removeNamespace(nsid: number): Promise<void>;
}

/** The commands that an emulated NVMe controller takes while it is served. */
export function nvmeControlCommands(server: ControlledNvme): ControlCommands {
  const { model } = server;
  const { faults } = model;
  const commands: Record<string, ControlCommand> = {
    help: {
      help: 'Lists the commands.',
      run: () => Object.fromEntries(Object.entries(commands).map(([name, { help }]) => [name, help])),
    },
    faults: {
      help: 'Lists the faults, with how much matched each, and how much of that it has struck.',
      run: () => faults.list(),
    },
    'add-fault': {
      help: 'Adds a fault, and returns its id. Argument: the fault, as a text or an object.',
      run: (argument) => ({ id: faults.add(faultOf(argument)) }),
    },
    'remove-fault': {
      help: 'Takes a fault away. Argument: its id.',
      run: (argument) => {
        const id = Number(argument);
        if (!faults.remove(id)) throw new Error(`there is no fault ${String(argument)}; faults lists them`);
      },
    },
    'clear-faults': {
      help: 'Takes all faults away, and returns how many there were.',
      run: () => ({ removed: faults.clear() }),
    },
    inject: {
      help: 'Does something now. Argument: fatal, event=EVENT, disconnect or remove.',
      run: (argument) => {
        faults.inject(faultOf(argument));
      },
    },
    namespaces: {
      help: 'Lists the namespaces, with what was done with each.',
      run: () => model.namespaces,
    },
    'add-namespace': {
      help: 'Adds a namespace, and returns what it is. Argument: a namespace as for --namespace.',
      run: (argument) => server.addNamespace(textOf(argument, 'a namespace, such as file=disk.img,bs=4096')),
    },
    'remove-namespace': {
      help: 'Removes a namespace, and closes its backend. Argument: its id.',
      run: (argument) => server.removeNamespace(nsidOf(argument)),
    },
    'resize-namespace': {
      help: 'Changes the size of a namespace. Argument: NSID=SIZE, or the id alone to take over the size of its storage.',
      run: (argument) => {
        const [nsid, size] = String(argument).split('=');
        return model.resizeNamespace(nsidOf(nsid), size === undefined ? undefined : parseSize(size));
      },
    },
    statistics: {
      help: 'What the controller has done so far, why it cannot go on (CSTS.CFS), and latencies in nanoseconds with --latencies.',
      run: () => ({ ...model.statistics, fault: model.fault, latencies: model.latencies }),
    },
  };
  return new Map(Object.entries(commands));
}

function textOf(argument: unknown, what: string): string {
  if (typeof argument === 'string') return argument;
  throw new Error(`the argument is ${what}`);
}

function nsidOf(argument: unknown): number {
  const nsid = typeof argument === 'string' && argument !== '' ? Number(argument) : argument;
  if (typeof nsid === 'number' && Number.isInteger(nsid)) return nsid;
  throw new Error(
    `the argument begins with the id of a namespace, got ${argument === undefined ? 'none' : JSON.stringify(argument)}`,
  );
}

function faultOf(argument: unknown): string | FaultSpec {
  if (typeof argument === 'string') return argument;
  if (typeof argument === 'object' && argument !== null && !Array.isArray(argument)) return argument;
  throw new Error('the argument is a fault, such as "on=write,nth=10,status=write-fault"');
}
