// SPDX-License-Identifier: MIT
import { formatSize } from '../bench/units';
import { isAbstractPath } from '../native';
import { type Command, printHelp } from './command';
import {
  SERVE_NVME,
  controllerArguments,
  controllerOptions,
  type ServeNvmeOptions,
} from './controller-options';
import { aborted, interruptible } from './interrupt';
import { MetricsServer, parseMetricsAddress, type MetricsAddress } from './metrics-server';
import { metricsText } from './nvme-metrics';
import { startNvmeServers, type NvmeServer, type NvmeServers } from './nvme-server';
import { statisticsText } from './nvme-statistics';
import { UsageError } from './option-spec';
import { parseCommandLine } from './options';
import { print, shellWord } from './output';
import { nvmeInstructions } from './served-socket';

/** `vfio-user serve nvme` */
export const serveNvme: Command = {
  spec: SERVE_NVME,
  run: async (args) => {
    const lines = controllerArguments(args).map((each) => parseCommandLine(SERVE_NVME, each));
    const options = lines.flatMap((line) => (line.help ? [] : [line.options]));
    if (options.length < lines.length) printHelp(SERVE_NVME);
    else await serveControllers(options);
  },
};

async function serveControllers(options: readonly ServeNvmeOptions[]): Promise<void> {
  const wanted = options.map(controllerOptions);
  const metrics = metricsAddress(options);
  const sockets = wanted.flatMap(({ socket, control }) =>
    control === undefined ? [socket] : [socket, control],
  );
  const twice = sockets.find((socket, index) => sockets.indexOf(socket) !== index);
  if (twice !== undefined) throw new UsageError(`Two sockets cannot be at ${twice}`);
  await interruptible(async (signal) => {
    const running = await startNvmeServers(wanted, signal);
    const tell = (): void => {
      print(statisticsText(running.servers));
    };
    let watched: MetricsServer | undefined;
    try {
      watched = await serveMetrics(metrics, running);
      process.on('SIGUSR1', tell);
      running.servers.forEach((server, index) => {
        print(introduction(server, wanted[index]?.fd));
      });
      for (const { control } of wanted)
        if (control !== undefined)
          print(`Change it while it runs: vfio-user control ${shellWord(control)} help`);
      print('\nSIGUSR1 prints statistics. Ctrl-C ends it.');
      await Promise.race([aborted(signal), running.ended]);
    } finally {
      process.off('SIGUSR1', tell);
      await watched?.close();
      await running.close();
    }
    tell();
  });
}

/** The one address that metrics are served at, whichever controller's options it is among. */
function metricsAddress(options: readonly ServeNvmeOptions[]): MetricsAddress | undefined {
  const [text, other] = new Set(options.flatMap(({ metrics }) => metrics ?? []));
  if (other !== undefined) throw new UsageError('Give --metrics once: it is for all controllers');
  return text === undefined ? undefined : parseMetricsAddress(text);
}

async function serveMetrics(
  address: MetricsAddress | undefined,
  { servers }: NvmeServers,
): Promise<MetricsServer | undefined> {
  if (address === undefined) return undefined;
  const server = await MetricsServer.listen(address, () => metricsText(servers));
  print(
    'path' in address
      ? `Metrics: curl --unix-socket ${shellWord(address.path)} http://localhost/metrics`
      : `Metrics: http://${address.host}:${address.port}/metrics`,
  );
  return server;
}

/** What a controller is, and how other programs reach it: lines to copy. */
function introduction({ socket, model }: NvmeServer, fd: number | undefined): string {
  const { namespaces } = model;
  const [first] = namespaces;
  const lines =
    namespaces.length === 1 && first !== undefined
      ? [
          `Serving an NVMe controller at ${socket}: ${formatSize(first.size)}, blocks of ${first.blockSize} bytes, ${first.kind} backend.`,
        ]
      : [
          `Serving an NVMe controller at ${socket}: ${namespaces.length} namespaces.`,
          ...namespaces.map(
            ({ nsid, size, blockSize, kind }) =>
              `  namespace ${nsid}: ${formatSize(size)}, blocks of ${blockSize} bytes, ${kind} backend`,
          ),
        ];
  if (isAbstractPath(socket))
    lines.push(
      "An abstract socket has no permissions: only processes of this server's user and of root are served.",
    );
  return [...lines, ...(fd === undefined ? [nvmeInstructions(socket)] : [])].join('\n');
}
