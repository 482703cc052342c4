// SPDX-License-Identifier: MIT
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { dist } from '../dist';

/** A server in a process of its own, over dist/, so that this process may block. */
export interface ChildServer {
  readonly path: string;
  readonly process: ChildProcess;
  /** Sends a message to the script's `onMessage`, and waits for its answer. */
  ask(question: string): Promise<unknown>;
  kill(): Promise<void>;
}

const prelude = `
  const fs = require('node:fs');
  const { serve, CommandError, Errno } = require(${JSON.stringify(join(dist, 'server'))});
  const { BackendResult, NvmeControllerModel, createBackend } = require(${JSON.stringify(join(dist, 'nvme'))});
  const pci = { vendorId: 0x1234, deviceId: 0x5678, classCode: 0xff0000 };
  const path = process.env.TEST_SOCKET ?? '@vfio-user-test-' + process.pid;
  let onMessage = () => null;
  process.on('message', async (question) => process.send({ answer: await onMessage(question) }));
  process.on('disconnect', () => process.exit());
`;

const running: ChildServer[] = [];

/**
 * Starts a server.
 *
 * @param model body of an async function that returns a device model; it may set `onMessage`
 * @param environment variables of the process, beside those of this one; `TEST_SOCKET` is where it listens
 */
export async function childServer(
  model: string,
  environment: Record<string, string> = {},
): Promise<ChildServer> {
  const script = `${prelude}(async () => {
    const model = await (async () => {${model}})();
    await serve(path, model, { onError: (error) => console.error(error) });
    process.send({ path });
  })();`;
  const child = spawn(process.execPath, ['-e', script], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, ...environment },
  });
  const [ready] = (await once(child, 'message')) as [{ path: string }];
  const server: ChildServer = {
    path: ready.path,
    process: child,
    ask: async (question) => {
      const answer = once(child, 'message') as Promise<[{ answer: unknown }]>;
      child.send(question);
      return (await answer)[0].answer;
    },
    kill: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
  };
  running.push(server);
  return server;
}

/** An emulated NVMe controller of 16 MiB in a process of its own. Its answer to any question is what CC was last set to. */
export function childController(options = ''): Promise<ChildServer> {
  return childServer(`
    const model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 16 << 20 }), serial: 'CHILD', ${options} });
    let cc = 0;
    const bar = model.pci.bars[0];
    const write = bar.write.bind(bar);
    bar.write = (offset, data, posted) => {
      if (offset === 0x14) cc = Buffer.from(data).readUInt32LE(0);
      return write(offset, data, posted);
    };
    onMessage = () => cc;
    return model;
  `);
}

afterAll(async () => {
  for (const server of running.splice(0)) await server.kill();
});
