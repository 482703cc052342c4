// SPDX-License-Identifier: MIT
/** The examples in the docstrings of the driver do what they say: they run against the emulated controller. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import ts from 'typescript';
import * as nvmeExports from '../../../lib/nvme';
import { connect } from '../../../lib/client';
import { attached, served } from './support';

const AsyncFunction = (async () => {}).constructor as new (
  ...args: string[]
) => (...values: unknown[]) => Promise<unknown>;

/** Runs the first example of a file, and returns the constants that it declares. */
async function run(file: string, given: Record<string, unknown>): Promise<Record<string, unknown>> {
  const source = readFileSync(join(__dirname, '..', '..', '..', 'lib', 'nvme', 'host', file), 'utf8');
  const comment = /@example\n([^]*?)\*\//.exec(source)![1]!;
  const example = comment.replace(/^ \*(?: |$)/gm, '');
  const names = [...example.matchAll(/^(?:const|let) (\w+) =/gm)].map((match) => match[1]!);
  const { outputText } = ts.transpileModule(`async () => {${example}return { ${names.join(', ')} };}`, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  const scope = { ...nvmeExports, setImmediate, ...given };
  // eval, because helpers of the transpiler may come before the function.
  const call = new AsyncFunction(...Object.keys(scope), `return eval(${JSON.stringify(outputText)})();`);
  return (await call(...Object.values(scope))) as Record<string, unknown>;
}

test('NvmeController', async () => {
  const { device, model } = await served();
  const reached = jest.fn(() => connect(device.name));
  await device.close();
  await run('controller.ts', { connect: reached });
  expect(reached).toHaveBeenCalledWith('/var/run/vfio-user/1/cntrl');
  expect(model.statistics).toMatchObject({ readCommands: 1, bytesRead: 4096, errors: 0 });
});

test('NvmeAdmin', async () => {
  const { nvme } = await attached({ serial: 'S1', model: 'M1' });
  const log = jest.fn();
  await run('admin.ts', { nvme, console: { log } });
  expect(log).toHaveBeenCalledWith('M1 S1: 25 degrees, 0 % used');
  expect(await nvme.admin.getFeature('temperatureThreshold')).toMatchObject({ threshold: 333 });
});

test('IoQueue', async () => {
  const { nvme, device, model } = await attached();
  await run('io-queue.ts', { nvme, device });
  expect(model.statistics).toMatchObject({ readCommands: 128, errors: 0 });
});

test('QueuePair', async () => {
  const { nvme, device, model } = await attached();
  await nvme.namespace(1).write(await device.dma.allocate(4096), { lba: 8, blocks: 1 });
  const { completion } = await run('queue-pair.ts', { nvme, device });
  expect(completion).toBe(7);
  expect(model.statistics).toMatchObject({ readCommands: 1, bytesRead: 512, errors: 0 });
  expect((await nvme.createQueuePair(4)).queue.id).toBe(2);
});
