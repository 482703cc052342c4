// SPDX-License-Identifier: MIT
/**
 * SPDK's own test programs against our controller. Set SPDK_DIR to a built SPDK; programs that were not built are skipped.
 *
 * SPDK's sgl, doorbell_aers, err_injection, startup and reset are not among them: they take PCIe devices only. Its abort ends
 * with a signal, as SPDK's vfio-user transport lacks what spdk_nvme_ctrlr_cmd_abort_ext() calls.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cli, Scratch, startCli, type Running } from '../cli/run-cli';
import { whyNoSpdk } from '../../bench/spdk-target';

const SPDK_DIR = process.env['SPDK_DIR'];
const whyNot = whyNoSpdk(SPDK_DIR);
const NQN = 'nqn.2019-07.io.spdk:cnode0';

/** A test with a program of SPDK; skipped, with the reason in its title, where the program is not there. */
function testProgram(title: string, path: string, run: (program: string) => Promise<void>): void {
  const program = join(SPDK_DIR ?? '', path);
  const why = whyNot ?? (existsSync(program) ? undefined : `${program} is not built`);
  (why === undefined ? test : test.skip)(why === undefined ? title : `${title}: skipped, ${why}`, () =>
    run(program),
  );
}

describe("SPDK's test programs", () => {
  let scratch: Scratch;
  let folder: string;
  let server: Running;

  beforeAll(async () => {
    scratch = new Scratch();
    folder = scratch.file('controller');
    mkdirSync(folder);
    server = startCli(scratch, 'serve', 'nvme', '--socket', folder, '--size', '64m');
    await server.said('Ctrl-C ends it.');
  });

  // Whatever a program has done, the controller is there for the next one, and the server complains of nothing.
  afterEach(async () => {
    expect(await cli(scratch, 'info', folder)).toMatchObject({ status: 0, stderr: '' });
  });

  afterAll(async () => {
    server.kill('SIGTERM');
    const { status, stderr } = await server.ended;
    scratch.remove();
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });

  const address = (): string => `trtype:VFIOUSER traddr:${folder} subnqn:${NQN}`;
  const run = (program: string, ...args: string[]): Promise<{ code: unknown; output: string }> =>
    new Promise((resolve) => {
      execFile(program, args, { maxBuffer: 2 ** 28 }, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : error.code, output: stdout + stderr });
      });
    });

  testProgram('nvme_compliance', 'test/nvme/compliance/nvme_compliance', async (program) => {
    const { output } = await run(program, '-g', '-r', address());
    // A message of the library may stand between the name and the result.
    const cases = [...output.matchAll(/Test: (\w+) \.\.\.(?:\[.*\n)*(passed|FAILED)/g)];
    expect(cases.length).toBe(18);
    const failed = cases.filter(([, , result]) => result !== 'passed').map(([, name]) => name);
    expect(failed).toEqual([]);
  });

  testProgram(
    'bdevperf verifies what it wrote while the controller is reset',
    'build/examples/bdevperf',
    async (program) => {
      const config = scratch.file('bdev.json');
      const params = { name: 'Nvme0', trtype: 'VFIOUSER', traddr: folder, subnqn: NQN };
      const attach = { method: 'bdev_nvme_attach_controller', params };
      writeFileSync(config, JSON.stringify({ subsystems: [{ subsystem: 'bdev', config: [attach] }] }));
      const load = ['-q', '32', '-o', '4096', '-w', 'reset', '-t', '5'];
      const { code, output } = await run(program, '-s', '256', '-g', '--json', config, ...load);
      expect(output).not.toMatch(/miscompare|ended in about .* with error/i);
      expect(Number(/Total\s+:\s+([\d.]+)/.exec(output)?.[1])).toBeGreaterThan(0);
      expect(code).toBe(0);
    },
  );

  testProgram('nvme_fuzz', 'test/app/fuzz/nvme_fuzz/nvme_fuzz', async (program) => {
    // -U: it may run where there is no IOMMU; -N: only namespaces that are there; -a: admin commands too.
    const options = ['-U', '-N', '-a', '-t', '5', '-S', '123456', '-s', '256', '-g', '-F', address()];
    const { code, output } = await run(program, ...options);
    expect(code).toBe(0);
    const commands = (queue: string): number =>
      Number(new RegExp(`${queue} qp, Total commands completed: (\\d+)`).exec(output)?.[1]);
    expect(commands('I/O')).toBeGreaterThan(1000);
    expect(commands('admin')).toBeGreaterThan(100);
  });

  testProgram('fused_ordering', 'test/nvme/fused_ordering/fused_ordering', async (program) => {
    const { code, output } = await run(program, '-r', address());
    // It numbers the pairs of a comparison and a write that were done, up to the last.
    expect(output.match(/fused_ordering\(\d+\)/g)?.length).toBe(1024);
    expect(code).toBe(0);
  });

  testProgram(
    'arbitration: two cores, each with its queue',
    'build/examples/arbitration',
    async (program) => {
      const load = ['-t', '2', '-d', '256', '-g', '-c', '0x3'];
      const { code, output } = await run(program, '-r', address(), ...load);
      const rates = [...output.matchAll(/core \d:\s+([\d.]+) IO\/s/g)].map(([, rate]) => Number(rate) > 0);
      expect(rates).toEqual([true, true]);
      expect(code).toBe(0);
    },
  );

  testProgram('overhead', 'test/nvme/overhead/overhead', async (program) => {
    const load = ['-o', '4096', '-t', '1', '-H', '-g', '-d', '256'];
    const { code, output } = await run(program, '-r', address(), ...load);
    expect(Number(/complete \(in ns\) avg, min, max =\s*([\d.]+)/.exec(output)?.[1])).toBeGreaterThan(0);
    expect(code).toBe(0);
  });

  testProgram('connect_stress', 'test/nvme/connect_stress/connect_stress', async (program) => {
    expect((await run(program, '-r', address(), '-t', '3')).code).toBe(0);
  });

  testProgram('simple_copy', 'test/nvme/simple_copy/simple_copy', async (program) => {
    const { code, output } = await run(program, '-r', address());
    expect(output).toContain('LBAs matching Written Data: 64');
    expect(code).toBe(0);
  });

  testProgram('aer: the temperature passes its threshold', 'test/nvme/aer/aer', async (program) => {
    expect((await run(program, '-g', '-T', '-r', address())).code).toBe(0);
  });

  testProgram('hello_world', 'build/examples/hello_world', async (program) => {
    const { code, output } = await run(program, '-d', '256', '-g', '-r', address());
    expect(output).toContain('Hello world!');
    expect(code).toBe(0);
  });

  testProgram('reconnect', 'build/examples/reconnect', async (program) => {
    const load = ['-q', '32', '-o', '4096', '-w', 'randrw', '-M', '50', '-t', '3', '-c', '0x1'];
    expect((await run(program, '-r', address(), '-g', ...load)).code).toBe(0);
  });
});
