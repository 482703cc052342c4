// SPDX-License-Identifier: MIT
import { spawnSync } from 'node:child_process';
import { dist } from '../dist';

/** How a child process ended. */
export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

const prelude = `
  const worker_threads = require('node:worker_threads');
  const fs = require('node:fs');
  /** Loads a room of lib/. */
  const load = (room) => require(${JSON.stringify(`${dist}/`)} + room);
  const native = load('native');
  const { EventFd, ListeningSocket, Mapping, Socket, closeFd, createSharedMemory } = native;
  const openFds = () => fs.readdirSync('/proc/self/fd').length;
  const mappings = () => fs.readFileSync('/proc/self/maps', 'utf8').split('\\n').filter((line) => line.includes('memfd:')).length;
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  /** One of everything, open. */
  const openAll = () => {
    const fd = createSharedMemory(8192, { sealed: false });
    const mapping = Mapping.map(fd, 0, 8192);
    const [near, far] = Socket.pair();
    const event = EventFd.create();
    const listener = ListeningSocket.listen('@vfio-user-' + process.pid + '-' + worker_threads.threadId + '-' + Math.random());
    const watchers = [near.watch(() => {}), far.watch(() => {}), event.watch(() => {}), listener.watch(() => {})];
    return { fd, mapping, near, far, event, listener, watchers };
  };
  const inWorker = (main, data) => new worker_threads.Worker(prelude + '(' + main + ')(worker_threads.workerData)', { eval: true, workerData: data });
  const ended = (worker) => new Promise((resolve) => { worker.on('exit', resolve); worker.on('error', (error) => console.log(error.message)); });
`;

/** Runs a script in a child process over dist/, with the addon's classes and some functions at hand. */
export function runScript(body: string, environment: Record<string, string> = {}): Outcome {
  const script = `const prelude = ${JSON.stringify(prelude)} + 'const prelude = "";';${prelude};(async () => {${body}})();`;
  const child = spawnSync(process.execPath, ['--expose-gc', '-e', script], {
    encoding: 'utf8',
    timeout: 45_000,
    env: { ...process.env, ...environment },
  });
  return { status: child.status, signal: child.signal, stdout: child.stdout.trim(), stderr: child.stderr };
}

/** A clean end with this output. */
export function cleanEnd(stdout: string): Outcome {
  return { status: 0, signal: null, stdout, stderr: '' };
}
