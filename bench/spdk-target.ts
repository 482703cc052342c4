// SPDX-License-Identifier: MIT
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** SPDK's target and clients share memory in huge pages of 2 MiB. */
const HUGE_PAGES_NEEDED = 512;

/**
 * Why SPDK cannot run here; undefined when it can.
 *
 * @param directory folder of a built SPDK (`--with-vfio-user`)
 * @param running a target runs already, and has its huge pages
 */
export function whyNoSpdk(directory: string | undefined, running = false): string | undefined {
  if (directory === undefined) return 'SPDK_DIR is not set';
  if (!existsSync(join(directory, 'build/bin/nvmf_tgt')))
    return `there is no build/bin/nvmf_tgt in ${directory}`;
  if (running) return undefined;
  const free = Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
  if (free < HUGE_PAGES_NEEDED) return `${free} free huge pages, ${HUGE_PAGES_NEEDED} needed`;
  return undefined;
}

/** A running `nvmf_tgt` with a vfio-user endpoint for each of three backends. */
export class SpdkTarget {
  readonly folder: string;
  /** Listener directories. */
  readonly malloc: string;
  readonly null: string;
  readonly aio: string;
  /** File behind the aio endpoint, 64 MiB. */
  readonly file: string;
  readonly #rpc: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  private constructor(folder: string, rpc: string, child: ChildProcess) {
    this.folder = folder;
    this.#rpc = rpc;
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('exit', resolve));
    this.malloc = join(folder, 'malloc');
    this.null = join(folder, 'null');
    this.aio = join(folder, 'aio');
    this.file = join(folder, 'aio.img');
  }

  /** @param directory folder of a built SPDK */
  static async start(directory: string): Promise<SpdkTarget> {
    const folder = mkdtempSync(join(tmpdir(), 'spdk-'));
    const rpc = join(folder, 'rpc.sock');
    const binary = join(directory, 'build/bin/nvmf_tgt');
    const child = spawn(binary, ['-m', '0x1', '-s', '512', '-r', rpc], { stdio: 'ignore' });
    const target = new SpdkTarget(folder, rpc, child);
    try {
      while (!existsSync(rpc)) {
        if (child.exitCode !== null) throw new Error(`nvmf_tgt ended with code ${child.exitCode}`);
        await sleep(50);
      }
      await target.#configure();
      return target;
    } catch (error) {
      await target.stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** NVMe qualified name of the subsystem behind an endpoint; SPDK's clients need it. */
  nqn(endpoint: 'malloc' | 'null' | 'aio'): string {
    return `nqn.2019-07.io.spdk:cnode${['malloc', 'null', 'aio'].indexOf(endpoint) + 1}`;
  }

  /** Stops it as it is, until {@link resume}, so that it leaves its core to others. */
  pause(): void {
    this.#child.kill('SIGSTOP');
  }

  resume(): void {
    this.#child.kill('SIGCONT');
  }

  /** Kills the target as a crash would. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Calls a method of its JSON-RPC. Rejects with its message. */
  call(method: string, params: object): Promise<unknown> {
    return call(this.#rpc, method, params);
  }

  async #configure(): Promise<void> {
    writeFileSync(this.file, Buffer.alloc(64 << 20));
    await this.call('framework_wait_init', {});
    await this.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
    await this.call('bdev_malloc_create', { name: 'Malloc0', num_blocks: 131072, block_size: 512 });
    await this.call('bdev_null_create', { name: 'Null0', num_blocks: 2097152, block_size: 512 });
    await this.call('bdev_aio_create', { name: 'Aio0', filename: this.file, block_size: 512 });
    const endpoints = [
      ['Malloc0', this.malloc],
      ['Null0', this.null],
      ['Aio0', this.aio],
    ] as const;
    for (const [index, [bdev, traddr]] of endpoints.entries()) {
      const nqn = `nqn.2019-07.io.spdk:cnode${index + 1}`;
      mkdirSync(traddr);
      await this.call('nvmf_create_subsystem', {
        nqn,
        allow_any_host: true,
        serial_number: `SPDK${index + 1}`,
      });
      await this.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: bdev } });
      await this.call('nvmf_subsystem_add_listener', {
        nqn,
        listen_address: { trtype: 'VFIOUSER', traddr, trsvcid: '0' },
      });
    }
  }
}

/** One JSON-RPC call on a connection of its own. */
function call(path: string, method: string, params: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(path);
    let text = '';
    socket.on('error', reject);
    socket.on('data', (data) => {
      text += data.toString();
      let answer: { result?: unknown; error?: { message: string } };
      try {
        answer = JSON.parse(text) as typeof answer;
      } catch {
        return;
      }
      socket.end();
      if (answer.error === undefined) resolve(answer.result);
      else reject(new Error(`${method}: ${answer.error.message}`));
    });
    const request = { jsonrpc: '2.0', id: 1, method, ...(Object.keys(params).length > 0 ? { params } : {}) };
    socket.write(JSON.stringify(request));
  });
}
