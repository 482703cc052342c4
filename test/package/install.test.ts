// SPDX-License-Identifier: MIT
/** What the README promises to who installs the package, without a compiler: with each npm, on each Node.js. */
import { join } from 'node:path';
import { NODES, nodeDirectory } from '../../scripts/nodes';
import { tool } from '../../scripts/tool';
import { Project, tarball } from './project';

// npm 12 needs Node.js 22.22. It runs no install scripts, and needs none with a prebuilt addon.
const PAIRS = [
  ['10.9.9', '20'],
  ['11.21.2', '22'],
  ['11.21.2', '24'],
  ['12.2.1', '26'],
] as const;

test.each(PAIRS)('npm %s, Node.js %s', (npm, major) => {
  using project = new Project(join(nodeDirectory(NODES[major] as string), 'node'));
  const npmCli = join(tool(`npm@${npm}`), 'bin', 'npm-cli.js');
  const installed = project.run(npmCli, 'install', '--prefer-offline', '--no-audit', '--no-fund', tarball());
  expect({ ...installed, stdout: '' }).toMatchObject({ status: 0, stdout: '' });

  const exported = 'console.log(typeof connect, typeof serve, typeof NvmeController, typeof ConfigSpace)';
  const names = {
    'vfio-user': 'connect',
    'vfio-user/server': 'serve',
    'vfio-user/nvme': 'NvmeController',
    'vfio-user/pci': 'ConfigSpace',
  };
  const imports = Object.entries(names).map(([from, name]) => `import { ${name} } from '${from}';`);
  const requires = Object.entries(names).map(([from, name]) => `const { ${name} } = require('${from}');`);
  for (const [file, lines] of [
    ['import.mjs', imports],
    ['require.cjs', requires],
  ] as const) {
    expect(project.run(project.write(file, [...lines, exported].join('\n')))).toEqual({
      status: 0,
      stdout: 'function function function function\n',
      stderr: '',
    });
  }

  const example = 'node_modules/vfio-user/examples/dma-without-shared-memory.mjs';
  expect(project.run(example)).toEqual({
    status: 0,
    stdout: 'mapped ranges: 0\ncopied: through DMA_READ and DMA_WRITE\n',
    stderr: '',
  });
  const exec = ['exec', '--offline', '--loglevel', 'error', 'vfio-user', '--'];
  const bench = project.run(npmCli, ...exec, 'bench', '--runtime', '200ms');
  expect(bench).toMatchObject({ status: 0, stderr: '' });
  expect(bench.stdout).toMatch(/\nread +[1-9]/);
});
