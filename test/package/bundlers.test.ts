// SPDX-License-Identifier: MIT
/** Bundles work with the setting that the README tells of, and name it without. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { tool } from '../../scripts/tool';
import { Project, tarball } from './project';

const PROGRAM = `
import { connect } from 'vfio-user';
import { PciIrq } from 'vfio-user/pci';
import { serve } from 'vfio-user/server';

const pci = { vendorId: 0x1234, deviceId: 1, classCode: 0 };
const run = async () => {
  const server = await serve('@bundle-' + process.pid, { name: 'bundled', pci, irqs: new Map([[PciIrq.req, 0]]) });
  const device = await connect(server.path);
  console.log((await device.pci.header()).vendorId.toString(16));
  await device.close();
  await server.close();
};
run().catch(({ code, message }) => console.log(code, message));
`;

let project: Project;
beforeAll(() => {
  project = new Project();
  const options = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--silent'];
  execFileSync('npm', ['install', ...options, tarball()], { cwd: project.directory });
  project.write('program.mjs', PROGRAM);
});
afterAll(() => {
  project[Symbol.dispose]();
});

const esbuild = (...options: string[]) => {
  const bundler = join(tool('esbuild@0.28.2'), 'bin', 'esbuild');
  return project.run(
    bundler,
    'program.mjs',
    '--bundle',
    '--platform=node',
    '--outfile=out/bundle.js',
    ...options,
  );
};
const webpack = (options: string) => {
  project.write(
    'webpack.config.js',
    `module.exports = {
      mode: 'production', target: 'node', entry: './program.mjs', context: __dirname,
      output: { path: __dirname + '/out', filename: 'bundle.js' }, ${options}
    };`,
  );
  const bundler = join(tool('webpack@5.113.0', 'webpack-cli@6.0.1'), 'bin', 'webpack.js');
  return project.run(bundler, '--config', 'webpack.config.js');
};

test.each([
  ['esbuild', () => esbuild('--external:vfio-user')],
  ['webpack', () => webpack("externals: [/^vfio-user/], externalsType: 'commonjs'")],
])('%s with its setting', (_name, bundle) => {
  expect(bundle()).toMatchObject({ status: 0 });
  expect(project.run('out/bundle.js')).toEqual({ status: 0, stdout: '1234\n', stderr: '' });
});

test.each([
  ['esbuild', () => esbuild(), '`--external:vfio-user` of esbuild'],
  ['webpack', () => webpack(''), "`externals: [/^vfio-user/], externalsType: 'commonjs'` of webpack"],
])('%s without it', (_name, bundle, advice) => {
  expect(bundle()).toMatchObject({ status: 0 });
  const { stdout } = project.run('out/bundle.js');
  expect(stdout).toMatch(/^ERR_VFIO_USER_ADDON A bundler /);
  expect(stdout).toContain(advice);
});
