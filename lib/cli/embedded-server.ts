// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { reportFailure } from './failure';
import { startNvmeServers } from './nvme-server';
import { ignoreClosedPipe } from './output';

/** What the embedded server sends its parent once it listens. */
export interface EmbeddedReady {
  /** Private directory with the socket; the server removes it when it ends. */
  readonly directory: string;
  readonly socket: string;
}

const BLOCK_SIZE = 512;

/**
 * The other end of `startEmbeddedEndpoint`, in a process of its own, whose argument is the size in bytes. The channel to the
 * parent closes however the parent ends, also by kill -9; so the server outlives it by moments, and leaves nothing behind.
 */
async function main(size: number): Promise<void> {
  // Before the directory is made: whatever ends the process from now on removes it.
  const stopped = new Promise<void>((resolve) => {
    process.once('disconnect', resolve);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        resolve();
      });
    }
  });
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  try {
    const socket = join(directory, 'cntrl');
    const server = await startNvmeServers([
      {
        socket,
        namespaces: [{ backend: { kind: 'memory', size }, blockSize: BLOCK_SIZE }],
        controller: {},
      },
    ]);
    const ready: EmbeddedReady = { directory, socket };
    // A parent that is gone cannot be told; the disconnect ends the server.
    process.send?.(ready, () => undefined);
    await stopped;
    await server.close();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

ignoreClosedPipe(process.stdout);
ignoreClosedPipe(process.stderr);
main(Number(process.argv[2]))
  .catch(reportFailure)
  .finally(() => {
    if (process.connected) process.disconnect();
  });
