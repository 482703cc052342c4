// SPDX-License-Identifier: MIT
/**
 * Runs the tests with other versions of Node.js and the addon that is built: `test-nodes [major …] [option of Jest …]`, by
 * default with all that are supported but the one that runs this. `{node}` in an option stands for the major version.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { NODES, nodeDirectory } from './nodes';

const args = process.argv.slice(2);
const firstOption = args.findIndex((arg) => !/^\d+$/.test(arg));
const majors = firstOption < 0 ? args : args.slice(0, firstOption);
const options = firstOption < 0 ? [] : args.slice(firstOption);

const others = Object.keys(NODES).filter((major) => !process.version.startsWith(`v${major}.`));

for (const major of majors.length > 0 ? majors : others) {
  const version = NODES[major];
  if (version === undefined)
    throw new Error(`no Node.js ${major} is known here; ${Object.keys(NODES).join(', ')} are`);
  const directory = nodeDirectory(version);
  console.log(`Node.js ${version}`);
  const jest = [
    require.resolve('jest/bin/jest'),
    ...options.map((option) => option.replaceAll('{node}', major)),
  ];
  const { status } = spawnSync(join(directory, 'node'), jest, {
    stdio: 'inherit',
    // Tests that start `node` by its name get the same one.
    env: { ...process.env, PATH: `${directory}:${process.env['PATH'] ?? ''}` },
  });
  if (status !== 0) process.exitCode = 1;
}
