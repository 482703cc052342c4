// SPDX-License-Identifier: MIT
import { ProxyModel } from '../proxy';
import { serve } from '../server';
import { defineCommand } from './command';
import { NVME_CLASS } from './device-report';
import { aborted, interruptible } from './interrupt';
import { ENDPOINT_HELP, openEndpoint } from './open-endpoint';
import { UsageError, type CommandSpec, type OptionValues } from './option-spec';
import { complain, print } from './output';
import { PERMISSION_OPTIONS, guestInstructions, nvmeInstructions, socketPath } from './served-socket';
import { socketPermissions } from './socket-permissions';
import { TraceFile } from './trace-file';
import { VF_TOKEN_OPTION, checkVfToken } from './vf-token';

const SPEC = {
  name: 'serve vfio',
  summary: 'Serve a PCI device of this machine, or one behind another socket, and show what is done to it.',
  positionals: [{ name: 'endpoint', help: ENDPOINT_HELP }],
  options: {
    socket: {
      type: 'string',
      placeholder: 'path',
      aliases: ['socket-path'],
      help: 'Where to listen: a path, @name for an abstract socket, or a directory, in which the socket is named cntrl as SPDK wants it.',
    },
    ...PERMISSION_OPTIONS,
    trap: {
      type: 'boolean',
      help: 'Let clients map no registers, so that each access comes through this program. A device of this machine is always served so.',
    },
    trace: {
      type: 'string',
      placeholder: 'path',
      help: 'Write a line for each register access, DMA map and interrupt to a file. Turns on --trap.',
    },
    timeout: {
      type: 'duration',
      default: '5',
      min: 0.001,
      max: 86_400,
      help: 'Time to connect to the device, and for each of its answers.',
    },
    'vf-token': VF_TOKEN_OPTION,
  },
  examples: [
    ['serve vfio 0000:01:00.0 --socket /tmp/ssd.sock --trace trace.txt', 'What a guest does to a real SSD'],
    [
      'serve vfio /tmp/nvme.sock --socket /tmp/watched.sock --trace /dev/stderr',
      'Between a client and a server',
    ],
  ],
} as const satisfies CommandSpec;

/** `vfio-user serve vfio` */
export const serveVfio = defineCommand(SPEC, async (options, [endpoint = '']) => {
  if (options.socket === undefined)
    throw new UsageError('Missing --socket: the path to listen at, or a directory for it');
  checkVfToken(options['vf-token'], [endpoint]);
  const socket = socketPath(options.socket);
  const permissions = socketPermissions(socket, options.mode, options.owner);
  const trace = options.trace === undefined ? null : new TraceFile(options.trace);
  try {
    await interruptible((signal) => proxy(endpoint, socket, permissions, options, trace, signal));
  } finally {
    trace?.close();
  }
});

async function proxy(
  endpoint: string,
  socket: string,
  { mode, owner }: ReturnType<typeof socketPermissions>,
  { trap, timeout, 'vf-token': vfToken }: OptionValues<typeof SPEC>,
  trace: TraceFile | null,
  signal: AbortSignal,
): Promise<void> {
  const milliseconds = timeout * 1000;
  const patience = { connectTimeout: milliseconds, messageTimeout: milliseconds };
  await using device = await openEndpoint(endpoint, { signal, ...patience }, vfToken);
  const model = await ProxyModel.of(device, { trap: trap || trace !== null, observer: trace?.observer });
  await using server = await serve(socket, model, {
    ...(mode !== undefined && { mode }),
    ...(owner !== undefined && { owner }),
    capabilities: model.capabilities,
    onError: (error) => {
      complain(error instanceof Error ? error.message : String(error));
    },
  });
  const isNvme = model.pci.classCode === NVME_CLASS;
  print(`Serving ${device.name} at ${server.path}.`);
  print(isNvme ? nvmeInstructions(socket) : guestInstructions(socket));
  print('\nCtrl-C ends it.');
  const gone = await Promise.race([aborted(signal), model.gone]);
  if (gone !== undefined) throw gone;
}
