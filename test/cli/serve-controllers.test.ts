// SPDX-License-Identifier: MIT
/** `serve nvme` with what makes a drive of its own: namespaces, identity, several controllers, statistics, metrics. */
import { existsSync, writeFileSync } from 'node:fs';
import { get, request } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { connect } from '../../lib/client';
import { NvmeController } from '../../lib/nvme/host';
import { Scratch, cli, failure, startCli, type Running } from './run-cli';

const MIB = 2 ** 20;

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

async function serving(...args: string[]): Promise<Running> {
  const running = startCli(scratch, 'serve', 'nvme', ...args);
  await running.said('Ctrl-C ends it.');
  return running;
}

async function attached<T>(socket: string, use: (nvme: NvmeController) => Promise<T>): Promise<T> {
  await using device = await connect(socket);
  await using nvme = await NvmeController.attach(device);
  return await use(nvme);
}

/** What is at /metrics, or elsewhere. */
function fetched(
  address: { port: number } | { socketPath: string },
  path = '/metrics',
  method = 'GET',
): Promise<{ status: number | undefined; type: string | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    request({ ...address, host: '127.0.0.1', path, method }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.once('end', () => {
        resolve({ status: response.statusCode, type: response.headers['content-type'], text });
      });
    })
      .once('error', reject)
      .end();
  });
}

test('namespaces and identity as they were asked for', async () => {
  const socket = scratch.file('nvme.sock');
  const uuid = '01234567-89ab-cdef-0123-456789abcdef';
  const running = await serving(
    ...[
      '--socket-path',
      socket,
      '--serial',
      'S1',
      '--model',
      'A drive',
      '--nqn',
      'nqn.2026-01.org.example:d',
    ],
    ...['--namespace', `file=${scratch.file('disk')},size=2m,bs=4096,nsid=3,uuid=${uuid}`],
    ...['--namespace', 'memory,size=1m', '--namespace', 'null,size=1m,eui64=0200000000000001'],
    ...['--mdts', '64k', '--max-entries', '16', '--doorbells', 'trapped', '--max-namespaces', '4'],
  );
  await attached(socket, async (nvme) => {
    expect(nvme.identify).toMatchObject({
      sn: 'S1',
      mn: 'A drive',
      subnqn: 'nqn.2026-01.org.example:d',
      mdts: 4,
      nn: 4,
    });
    expect(nvme.namespaces.map(({ id, blockSize }) => [id, blockSize])).toEqual([
      [1, 512],
      [2, 512],
      [3, 4096],
    ]);
    expect(await nvme.admin.namespaceDescriptors(3)).toMatchObject({ uuid });
    expect(await nvme.admin.namespaceDescriptors(2)).toMatchObject({ eui64: '0200000000000001' });
  });
  const { stdout: info } = await cli(scratch, 'info', socket, '--json');
  expect(JSON.parse(info)).toMatchObject({
    nvme: { capabilities: { maxQueueEntries: 16 }, doorbellsMappable: false },
  });
  running.kill('SIGTERM');
  const { stdout, ...rest } = await running.ended;
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toContain(`Serving an NVMe controller at ${socket}: 3 namespaces.`);
  expect(stdout).toContain('  namespace 3: 2.00MiB, blocks of 4096 bytes, file backend');
});

test('a file keeps its identity across restarts', async () => {
  const socket = scratch.file('nvme.sock');
  const identity = async (): Promise<unknown> => {
    const running = await serving('--socket', socket, '--namespace', `file=${scratch.file('disk')},size=1m`);
    const found = await attached(socket, async ({ identify, admin }) => [
      identify.sn,
      identify.subnqn,
      await admin.namespaceDescriptors(1),
    ]);
    running.kill('SIGTERM');
    expect(await running.ended).toMatchObject({ status: 0, stderr: '' });
    return found;
  };
  expect(await identity()).toEqual(await identity());
});

describe('several controllers', () => {
  test('each has its own drive; what stands before the first socket is for all', async () => {
    const [a, b] = [scratch.file('a.sock'), scratch.file('b.sock')];
    const running = await serving(
      ...['--size', '1m', '--queues', '2'],
      ...['--socket', a, '--serial', 'A'],
      ...[`--socket=${b}`, '--serial', 'B', '--namespace', 'memory,size=2m,bs=4096'].slice(0, 3),
    );
    await attached(a, (first) =>
      attached(b, async (second) => {
        expect([first.identify.sn, second.identify.sn]).toEqual(['A', 'B']);
        expect(first.identify.subnqn).not.toBe(second.identify.subnqn);
        const ids = await Promise.all([first, second].map(({ admin }) => admin.namespaceDescriptors(1)));
        expect(ids[0]?.uuid).not.toBe(ids[1]?.uuid);
        const memory = await first.device.dma.allocate(4096);
        const other = await second.device.dma.allocate(4096);
        new Uint8Array(memory.buffer, 0, 512).fill(0x5a);
        await first.namespace(1).write(memory, { lba: 7, blocks: 1 });
        await second.namespace(1).read(other, { lba: 7, blocks: 1 });
        expect(new Uint8Array(other.buffer, 0, 512).every((byte) => byte === 0)).toBe(true);
      }),
    );
    running.kill('SIGTERM');
    const { stdout, ...rest } = await running.ended;
    expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
    expect(stdout).toMatch(
      /^.*a\.sock: admin commands \d+, errors 0, .*\n {2}namespace 1 \(memory, 1\.00MiB\): reads 0 \(0B\), writes 1 \(512B\)/m,
    );
    expect(stdout).toMatch(
      /^.*b\.sock: .*\n {2}namespace 1 \(memory, 1\.00MiB\): reads 1 \(512B\), writes 0 \(0B\)/m,
    );
    expect(scratch.entries()).toEqual([]);
  });

  test('a file cannot be the data of two namespaces', async () => {
    const file = scratch.file('disk');
    writeFileSync(file, new Uint8Array(MIB));
    const [a, b] = [scratch.file('a.sock'), scratch.file('b.sock')];
    expect(
      await cli(scratch, ...['serve', 'nvme', '--namespace', `file=${file}`, '--socket', a, '--socket', b]),
    ).toEqual(failure(2, `${file} is the data of two namespaces, at ${a} and at ${b}`));
    expect(scratch.entries()).toEqual(['disk']);
  });

  test('none is served when one cannot be', async () => {
    const [a, b] = [scratch.file('a.sock'), scratch.file('no/b.sock')];
    const { status, stdout, stderr } = await cli(
      scratch,
      ...['serve', 'nvme', '--size', '1m', '--socket', a, '--socket', b],
    );
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^vfio-user: [^\n]*no\/b\.sock[^\n]*\n$/);
    expect(existsSync(a)).toBe(false);
  });
});

test('SIGUSR1 prints statistics', async () => {
  const socket = scratch.file('nvme.sock');
  const running = await serving('--socket', socket, '--size', '1m', '--serial', 'S');
  await attached(socket, async ({ admin }) => {
    await expect(admin.identifyNamespace(99)).rejects.toMatchObject({ sc: 0x0b });
  });
  running.kill('SIGUSR1');
  await running.said(`\n${socket}: `);
  running.kill('SIGTERM');
  const { stdout, ...rest } = await running.ended;
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout.match(/^.*nvme\.sock: .*, errors 1, /gm)).toHaveLength(2);
});

describe('metrics', () => {
  async function freePort(): Promise<number> {
    const probe = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => probe.once('listening', resolve));
    const { port } = probe.address() as AddressInfo;
    await new Promise((resolve) => probe.close(resolve));
    return port;
  }

  test('in the text format of Prometheus, on a port of this machine', async () => {
    const socket = scratch.file('nvme.sock');
    const port = await freePort();
    const running = await serving(
      ...['--socket', socket, '--size', '1m', '--serial', 'a"b', '--metrics', String(port)],
    );
    await running.said(`Metrics: http://127.0.0.1:${port}/metrics`);
    await attached(socket, async (nvme) => {
      const memory = await nvme.device.dma.allocate(4096);
      await nvme.namespace(1).write(memory, { lba: 0, blocks: 8 });
      await expect(nvme.namespace(1).compare(memory, { lba: 2048, blocks: 1 })).rejects.toThrow();
    });
    const { status, type, text } = await fetched({ port });
    expect([status, type]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
    // Golden: the exposition format's own rules, one sample a line, labels escaped.
    const labels = `socket="${socket}",serial="a\\"b"`;
    const lines = text.split('\n');
    expect(lines).toEqual(
      expect.arrayContaining([
        '# TYPE vfio_user_nvme_commands_total counter',
        `vfio_user_nvme_commands_total{${labels},namespace="1",command="write"} 1`,
        `vfio_user_nvme_bytes_total{${labels},namespace="1",direction="written"} 4096`,
        `vfio_user_nvme_namespace_size_bytes{${labels},namespace="1"} ${MIB}`,
        `vfio_user_nvme_stopped{${labels}} 0`,
      ]),
    );
    for (const line of lines.slice(0, -1)) {
      expect(line).toMatch(/^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{([a-z]+="([^"\\]|\\.)*",?)+\} \d+)$/);
    }
    expect(lines.at(-1)).toBe('');
    expect((await fetched({ port }, '/')).status).toBe(404);
    expect((await fetched({ port }, '/metrics', 'POST')).status).toBe(405);
    expect((await fetched({ port }, '/metrics', 'HEAD')).text).toBe('');
    running.kill('SIGTERM');
    expect(await running.ended).toMatchObject({ status: 0, stderr: '' });
  });

  test('latencies, as a histogram of Prometheus; statistics tell them in words', async () => {
    const [socket, path] = [scratch.file('nvme.sock'), scratch.file('metrics.sock')];
    const running = await serving(
      ...['--socket', socket, '--size', '1m', '--serial', 'S', '--metrics', path, '--latencies'],
    );
    await attached(socket, async (nvme) => {
      const memory = await nvme.device.dma.allocate(4096);
      for (let i = 0; i < 3; i++) await nvme.namespace(1).write(memory, { lba: 0, blocks: 8 });
    });
    const { text } = await fetched({ socketPath: path });
    expect(text).toContain('\n# TYPE vfio_user_nvme_latency_seconds histogram\n');
    const name = (part: string): string =>
      `vfio_user_nvme_latency_seconds_${part}{socket="${socket}",serial="S",`;
    const values = (prefix: string): string[] =>
      text.split('\n').flatMap((line) => (line.startsWith(prefix) ? [line.slice(prefix.length)] : []));
    const buckets = values(`${name('bucket')}command="write",`).map((line) => {
      const [, le, count] = /^le="([^"]+)"\} (\d+)$/.exec(line) ?? [];
      return [Number(le?.replace('+Inf', 'Infinity')), Number(count)] as const;
    });
    // A bucket counts all up to its limit, and the last is +Inf, with the count.
    expect(buckets.map(([le]) => le)).toEqual(buckets.map(([le]) => le).sort((a, b) => a - b));
    expect(buckets[0]?.[0]).toBe(1e-6);
    expect(buckets.map(([, count]) => count)).toEqual(
      buckets.map(([, count]) => count).sort((a, b) => a - b),
    );
    expect(buckets.slice(-2).map(([, count]) => count)).toEqual([3, 3]);
    expect(buckets.at(-1)?.[0]).toBe(Infinity);
    expect(values(`${name('count')}command="write"} `)).toEqual(['3']);
    expect(values(`${name('count')}command="read"} `)).toEqual(['0']);
    const [sum = ''] = values(`${name('sum')}command="write"} `);
    expect(Number(sum)).toBeGreaterThan(0);
    expect(Number(sum)).toBeLessThan(30);
    running.kill('SIGTERM');
    const { stdout, ...rest } = await running.ended;
    expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
    expect(stdout).toMatch(/^ {2}latency of write: p50 \S+s, p99 \S+s, max \S+s \(3 commands\)$/m);
    expect(stdout).not.toContain('latency of read');
  });

  test('on a unix socket, which is removed at the end; the socket of a process that is gone is replaced', async () => {
    const [socket, path] = [scratch.file('nvme.sock'), scratch.file('metrics.sock')];
    const args = ['--socket', socket, '--size', '1m', '--metrics', path];
    const first = await serving(...args);
    first.kill('SIGKILL');
    await first.ended;
    expect(existsSync(path)).toBe(true);
    const second = await serving(...args);
    const { text } = await fetched({ socketPath: path });
    expect(text).toContain('vfio_user_nvme_commands_total');
    expect(text).not.toContain('latency');
    // Connections that say nothing do not keep it from ending.
    const silent = get({ socketPath: path, path: '/metrics', headers: { Connection: 'keep-alive' } });
    silent.on('error', () => undefined);
    second.kill('SIGTERM');
    expect(await second.ended).toMatchObject({ status: 0, stderr: '' });
    expect(scratch.entries()).toEqual([]);
  });

  test('where somebody else listens', async () => {
    const path = scratch.file('metrics.sock');
    const other = createServer().listen(path);
    await new Promise((resolve) => other.once('listening', resolve));
    const socket = scratch.file('nvme.sock');
    const { status, stdout, stderr } = await cli(
      scratch,
      ...['serve', 'nvme', '--socket', socket, '--size', '1m', '--metrics', path],
    );
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^vfio-user: [^\n]*EADDRINUSE[^\n]*metrics\.sock[^\n]*\n$/);
    expect(existsSync(socket)).toBe(false);
    await new Promise((resolve) => other.close(resolve));
  });
});
