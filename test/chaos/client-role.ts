// SPDX-License-Identifier: MIT
import { closeSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { ClientProcess } from './client-process';
import { Header, Phase, sharedNow, type ClientOrder } from './client-messages';
import { PATIENCE } from './drive';
import { resourcesOf, type Footprint } from './footprint';
import { CELL_BYTES, HEADER_WORDS, Ledger } from './ledger';
import type { Fault } from './plan';
import { RawPeer, type Behaviour } from './raw-peer';
import { injectAll, type Role, type RunOptions, type World } from './role';
import { ServerProcess } from './server-process';
import type { Tally } from './tally';

const CELLS = 512;
/** Commands of the load before a client is killed, at most. */
const COMMANDS = 100;
const MOST_RANGES = 32;
/** What the server lets a client that does nothing keep others waiting, in seconds. */
const IDLE_TIMEOUT = '0.25';
/** Of silent peers, those that wait until the server disconnects them. */
const PATIENT_PEERS = 0.05;

const KINDS = {
  kill: 'the client is killed: while it connects, is set up, reads back, writes, or closes',
  reset: 'the controller or the device is reset under load, and brought up again',
  stop: 'the client is stopped until another was served, and goes on then',
  silent: 'a peer connects and says nothing; the next client waits behind it',
  slow: 'a peer sends thousands of requests and reads no reply',
  half: 'a peer sends a part of a message, and ends',
  descriptors: 'the server may open no more descriptors than it needs to accept a client, or a few more',
  shrunk: 'the client truncates a file that the server has mapped and writes to',
} as const;

/** Where a client is killed: with `when` of a fault below the first number, and so on. */
const KILL_PHASES: readonly [number, Phase][] = [
  [0.08, 'connect'],
  [0.2, 'bring-up'],
  [0.3, 'verify'],
  [0.95, 'load'],
  [1, 'close'],
];

/** A server, and its clients one after the other. */
class ClientWorld implements World {
  readonly #tally: Tally;
  readonly #seed: number;
  readonly #server: ServerProcess;
  readonly #folder: string;
  /** The ledger of the client: each begins with a copy of that of its predecessor, who may be alive. */
  #ledger = { path: '', fd: -1 };
  readonly #word = new Uint32Array(1);
  readonly #descriptorLimit: number;
  /** A process that waits to be the next client: what it takes to start one is no part of the gap. */
  #next: ClientProcess | undefined;
  #client: ClientProcess | undefined;
  #clients = 0;
  /** When the place became free, by the shared clock; undefined when it was not a death that made it so. */
  #freeSince: number | undefined;

  private constructor({ tally, seed, folder }: RunOptions, server: ServerProcess) {
    this.#tally = tally;
    this.#seed = seed;
    this.#server = server;
    this.#descriptorLimit = server.descriptorLimit();
    this.#folder = folder;
    this.#openLedger(new Uint8Array(Ledger.wordsOf(CELLS) * 4));
  }

  static async start(options: RunOptions): Promise<ClientWorld> {
    const size = String(CELLS * CELL_BYTES);
    const serve = ['--backend', 'memory', '--size', size, '--idle-timeout', IDLE_TIMEOUT];
    return new ClientWorld(options, await ServerProcess.start(join(options.folder, 'socket'), serve));
  }

  async inject(fault: Fault): Promise<boolean> {
    let injected = true;
    switch (fault.kind) {
      case 'kill':
        await this.#kill(fault);
        break;
      case 'reset':
        await this.#order({ do: fault.where < 0.5 ? 'reset-controller' : 'reset-device' }, 'a reset');
        break;
      case 'shrunk':
        await this.#order({ do: 'shrink' }, 'a file that was truncated');
        break;
      case 'stop':
        await this.#stop();
        break;
      case 'silent':
      case 'slow':
      case 'half':
        await this.#rawPeer(fault, fault.kind);
        break;
      case 'descriptors':
        injected = await this.#descriptors(fault);
        break;
      default:
        throw new Error(`there is no fault ${fault.kind}`);
    }
    if (this.#server.ending !== undefined) throw new Error(this.#server.ending);
    return injected;
  }

  /** Ends the client in an orderly way, and measures the server when it has let go of everything. */
  async rest(before?: Footprint): Promise<Footprint> {
    const client = await this.#served();
    client.order({ do: 'close' });
    await client.next('closing');
    await client.exit();
    this.#countVerified();
    this.#client = undefined;
    // What a client had goes in slices: until two looks see the same, and no more than before.
    const deadline = sharedNow() + PATIENCE;
    for (let last = await this.#server.footprint(); ;) {
      const now = await this.#server.footprint();
      const same = now.fds === last.fds && now.shared === last.shared;
      const more = before !== undefined && (now.fds > before.fds || now.shared > before.shared);
      if ((same && !more) || sharedNow() > deadline) return now;
      last = now;
      await sleep(10);
    }
  }

  /** The last client reads everything back. */
  async finish(): Promise<void> {
    const client = await this.#served();
    await this.#until(client, () => this.#read(Header.phase) >= Phase.load, 'the load');
    this.#countVerified();
  }

  async close(): Promise<void> {
    await this.#client?.kill();
    await this.#next?.kill();
    await this.#server.end('SIGKILL');
    closeSync(this.#ledger.fd);
  }

  /** The client under load. */
  async #served(how: Pick<Fault, 'where' | 'much'> = { where: 0.5, much: 0.5 }): Promise<ClientProcess> {
    if (this.#client !== undefined) return this.#client;
    const client = this.#begin(how);
    await this.#firstIo(client);
    return client;
  }

  /** Gives the place to the client that waits. */
  #begin({ where, much }: Pick<Fault, 'where' | 'much'>): ClientProcess {
    const client = this.#spare;
    this.#next = undefined;
    const ledger = new Uint8Array(readFileSync(this.#ledger.path));
    ledger.fill(0, 0, HEADER_WORDS * 4);
    closeSync(this.#ledger.fd);
    rmSync(this.#ledger.path);
    this.#clients++;
    this.#openLedger(ledger);
    client.go({
      socket: this.#server.path,
      ledger: this.#ledger.path,
      cells: CELLS,
      seed: this.#seed,
      loadSeed: (this.#seed ^ Math.imul(this.#clients, 0x9e3779b1)) >>> 0,
      vectors: where < 0.5 ? 0 : 2,
      ranges: Math.floor(much * MOST_RANGES),
    });
    return (this.#client = client);
  }

  #openLedger(bytes: Uint8Array): void {
    const path = join(this.#folder, `ledger-${this.#clients}`);
    writeFileSync(path, bytes);
    this.#ledger = { path, fd: openSync(path, 'r') };
  }

  get #spare(): ClientProcess {
    return (this.#next ??= new ClientProcess(({ mistake, text }) => {
      this.#tally.mistake(mistake, text);
    }));
  }

  /** Waits until a client is served. */
  async #firstIo(client: ClientProcess): Promise<void> {
    const report = await client.next('the first I/O of a client');
    if (report?.kind !== 'first-io') {
      const why = report?.kind === 'refused' ? report.text : 'it ended';
      throw new Error(`a client was not served: ${why}; the server says: ${this.#server.complaints}`);
    }
    if (this.#freeSince !== undefined) this.#tally.gaps.push(report.at - this.#freeSince);
    this.#freeSince = undefined;
  }

  async #kill(fault: Fault): Promise<void> {
    const phase = KILL_PHASES.find(([below]) => fault.when < below)?.[1] ?? 'load';
    const early = phase !== 'load' && phase !== 'close';
    // One that is under load already cannot be killed in an earlier phase.
    if (early && this.#client !== undefined) await this.#killNow(this.#client);
    const client = early ? this.#begin(fault) : await this.#served(fault);
    if (!early) {
      await this.#until(client, () => this.#read(Header.phase) >= Phase.load, 'the load');
      const enough = this.#read(Header.done) + 1 + Math.floor(fault.much * COMMANDS);
      await this.#until(client, () => this.#read(Header.done) >= enough, 'commands of the load');
      // Then the gap after the death is the server's.
      await this.#spare.ready;
      if (phase === 'close') client.order({ do: 'close' });
    }
    await this.#until(client, () => this.#read(Header.phase) >= Phase[phase] || client.ended, phase);
    for (let turns = Math.floor(fault.where * fault.pause); turns > 0; turns--) await turn();
    await this.#killNow(client);
  }

  async #killNow(client: ClientProcess): Promise<void> {
    await client.kill();
    this.#countVerified();
    this.#freeSince = this.#next?.isReady === true ? client.killedAt : undefined;
    this.#client = undefined;
  }

  async #order(order: ClientOrder, what: string): Promise<void> {
    const client = await this.#served();
    client.order(order);
    const report = await client.next(what);
    if (report?.kind !== 'done')
      throw new Error(`${what}: ${report?.kind === 'refused' ? report.text : 'the client ended'}`);
  }

  async #stop(): Promise<void> {
    const stopped = await this.#served();
    stopped.signal('SIGSTOP');
    this.#client = undefined;
    this.#countVerified();
    await this.#served();
    stopped.signal('SIGCONT');
    // It finds out that its place is another's, and ends without a fuss.
    const report = await stopped.next('a client that was stopped');
    const code = await stopped.exit();
    if (report?.kind !== 'refused' || code !== 0)
      this.#tally.mistake(
        'broken',
        `a client that was stopped ended with ${code}, and ${JSON.stringify(report)}`,
      );
  }

  async #rawPeer({ pause, where }: Fault, behaviour: Behaviour): Promise<void> {
    await this.#killNow(await this.#served());
    const peer = await RawPeer.connect(this.#server.path, behaviour);
    this.#freeSince = undefined;
    const next = this.#served();
    if (behaviour === 'silent' && where < PATIENT_PEERS) await peer.closed;
    else await sleep(pause);
    peer.close();
    await next;
  }

  async #descriptors(fault: Fault): Promise<boolean> {
    await this.#killNow(await this.#served());
    const { fds } = resourcesOf(this.#server.pid);
    // The numbers that are in use need not be the lowest.
    const limit = fds + Math.floor(fault.much * 8);
    if (!this.#server.limitDescriptors(limit)) {
      this.#tally.notes.add('descriptors: not injected, since prlimit(1) cannot set a limit here');
      return false;
    }
    const client = this.#begin(fault);
    this.#freeSince = undefined;
    const answer = client.next('a client of a server without descriptors');
    await Promise.race([answer, sleep(10 * fault.pause)]);
    this.#server.limitDescriptors(this.#descriptorLimit);
    // It waited to be accepted, and is served now; or it was refused.
    if ((await answer)?.kind === 'first-io') return true;
    await client.exit();
    this.#client = undefined;
    this.#tally.fails('clients refused');
    await this.#served();
    return true;
  }

  async #until(client: ClientProcess, condition: () => boolean, what: string): Promise<void> {
    const deadline = sharedNow() + PATIENCE;
    while (!condition()) {
      if (sharedNow() > deadline) throw new Error(`did not come within ${PATIENCE} ms: ${what}`);
      if (client.ended) throw new Error(`the client ended before ${what}`);
      await sleep(1);
    }
  }

  /** Clients that have read back everything, and the commands of the one that ends. */
  #countVerified(): void {
    this.#tally.verifiedBytes += this.#read(Header.verified) * CELLS * CELL_BYTES;
    this.#tally.ios += this.#read(Header.done);
    this.#tally.flushes += this.#read(Header.flushes);
  }

  #read(index: number): number {
    readSync(this.#ledger.fd, new Uint8Array(this.#word.buffer), 0, 4, index * 4);
    return this.#word[0] as number;
  }
}

export const clientRole: Role = {
  summary:
    'clients of a server die and misbehave, each in a process of its own; the server must not leak, and serve the next',
  kinds: KINDS,
  gap: 'death to next first I/O',
  run: async (options) => injectAll(options, await ClientWorld.start(options), 'server'),
};
