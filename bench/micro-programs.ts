// SPDX-License-Identifier: MIT
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';

const SOURCES = join(__dirname, '../../../bench/c');
const CLIENT_CORE = 0;
const SERVER_CORE = 1;

/** What the C client can measure; see bench/c/client.c. */
export type Measurement =
  'read' | 'bar-read' | 'reads' | 'loads' | 'single-loads' | 'chained-loads' | 'interrupts' | 'maps';

/** What bench/mapped-reads.ts can measure. */
export type OurLoads = 'loads' | 'argument-loads' | 'single-loads' | 'chained-loads' | 'loads-after-close';

/** The C compiler: `$CC`, else `cc` or `gcc`; undefined when there is none. */
export function findCompiler(): string | undefined {
  const named = process.env['CC'];
  const candidates = named === undefined || named === '' ? ['cc', 'gcc'] : [named];
  return candidates.find((name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0);
}

/** The C server and client, compiled into a folder of their own, and the processes that run them. */
export class Programs {
  readonly #folder = mkdtempSync(join(tmpdir(), 'vfio-user-micro-'));
  readonly #children = new Set<ChildProcess>();
  readonly #bound: boolean;

  /** @param bind whether client and server get a processor each */
  constructor(bind: boolean) {
    this.#bound = bind && availableParallelism() > SERVER_CORE && bindCurrentProcess();
  }

  /** Whether client and server have a processor each. */
  get bound(): boolean {
    return this.#bound;
  }

  compile(): void {
    const compiler = findCompiler();
    if (compiler === undefined) {
      throw new Error(
        'The micro-benchmark compares with small C programs and needs a C compiler, but neither cc nor gcc runs. ' +
          'Install one, or name one with the environment variable CC',
      );
    }
    for (const name of ['server', 'client']) {
      // A short loop takes up to four times as long where a jump of it crosses 32 bytes.
      execFileSync(
        compiler,
        ['-O2', '-falign-loops=32', '-o', this.#path(name), join(SOURCES, `${name}.c`)],
        {
          stdio: 'inherit',
        },
      );
    }
  }

  /**
   * Starts a server; its socket.
   *
   * @param look microseconds for which it looks for another message before it sleeps
   */
  async serve(look = 0): Promise<string> {
    const path = this.#path(`socket-${look}`);
    await this.#started([this.#path('server'), path, String(look)]);
    return path;
  }

  /**
   * Starts the device of bench/served-device.ts; its socket. It spins by default where it may use two processors or more, so that it
   * is bound to one when it listens.
   *
   * @param spin microseconds, as `serve` takes it
   */
  async serveOurs(spin?: number): Promise<string> {
    const path = this.#path(`ours-${spin ?? 'default'}`);
    const options = spin === undefined ? [] : [String(spin)];
    const command = [process.execPath, join(__dirname, 'served-device.js'), path, ...options];
    const { pid } = await this.#started(command, `${SERVER_CORE},${CLIENT_CORE}`);
    if (this.#bound) spawnSync('taskset', ['-a', '-c', '-p', String(SERVER_CORE), String(pid)]);
    return path;
  }

  /** Starts libvfio-user's GPIO sample; its socket. */
  async serveSample(folder: string): Promise<string> {
    const path = this.#path('sample');
    const child = this.#start(SERVER_CORE, [join(folder, 'gpio-pci-idio-16'), path]);
    await new Promise<void>((resolve, reject) => {
      const look = setInterval(() => {
        if (!existsSync(path) && child.exitCode === null) return;
        clearInterval(look);
        if (child.exitCode === null) resolve();
        else reject(new Error(`The sample of libvfio-user ended with ${child.exitCode}`));
      }, 10);
      child.once('error', reject);
    });
    return path;
  }

  /**
   * Runs the C client: nanoseconds, one number for each event or one for all.
   *
   * @param more the pause of `interrupts` in microseconds, the region of `bar-read`
   */
  measure(what: Measurement, path: string, count: number, more = 0): Promise<number[]> {
    return this.#run(this.#path('client'), [what, path, String(count), String(more)]);
  }

  /** Runs bench/mapped-reads.ts, where the C client is run too. */
  measureLoads(what: OurLoads, path: string, count: number): Promise<number[]> {
    return this.#run(process.execPath, [join(__dirname, 'mapped-reads.js'), what, path, String(count)]);
  }

  /** Ends the processes and removes the folder. Idempotent, and synchronous for handlers of the exit. */
  close(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #run(command: string, args: readonly string[]): Promise<number[]> {
    const child = this.#start(CLIENT_CORE, [command, ...args]);
    let text = '';
    child.stdout?.on('data', (data: Buffer) => (text += data.toString()));
    const code = await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${String(code)}`);
    return text.trimEnd().split('\n').map(Number);
  }

  /** Starts a server, which says so when it listens. */
  async #started(command: string[], cores: number | string = SERVER_CORE): Promise<ChildProcess> {
    const child = this.#start(cores, command);
    await new Promise((resolve, reject) => {
      child.stdout?.once('data', resolve);
      child.once('error', reject);
      child.once('exit', (code) => {
        reject(new Error(`${command.join(' ')} ended with ${String(code)}`));
      });
    });
    return child;
  }

  #path(name: string): string {
    return join(this.#folder, name);
  }

  #start(cores: number | string, [command = '', ...args]: string[]): ChildProcess {
    const stdio = ['ignore', 'pipe', 'inherit'] as const;
    const child = this.#bound
      ? spawn('taskset', ['-c', String(cores), command, ...args], { stdio: [...stdio] })
      : spawn(command, args, { stdio: [...stdio] });
    this.#children.add(child);
    child.once('close', () => this.#children.delete(child));
    return child;
  }
}

/**
 * Binds all threads of this process, also those of V8, which must not take the server's processor, and so what they start;
 * false when taskset(1) or the processor is not there.
 */
function bindCurrentProcess(): boolean {
  const taskset = (...args: string[]): boolean =>
    spawnSync('taskset', args, { stdio: 'ignore' }).status === 0;
  return (
    taskset('-c', String(SERVER_CORE), 'true') &&
    taskset('-a', '-c', '-p', String(CLIENT_CORE), String(process.pid))
  );
}
