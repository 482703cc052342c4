// SPDX-License-Identifier: MIT
/** The samples of the README and the examples compile with each TypeScript, however it looks for modules. */
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { tool } from '../../scripts/tool';
import { Project, tarball } from './project';

const ROOT = join(__dirname, '..', '..');

/** Each with types of Node.js that it understands: the oldest that the package takes, and of today. */
const COMPILERS = [
  ['5.4.5', '20.19.43'],
  ['5.6.3', '20.19.43'],
  ['5.9.3', '26.6.6'],
  ['6.0.3', '26.6.6'],
  ['7.0.2', '26.6.6'],
] as const;
const MODES = [
  ['node16', 'node16'],
  ['nodenext', 'nodenext'],
  ['esnext', 'bundler'],
] as const;

const projects = new Map<string, Project>();
afterAll(() => {
  for (const project of projects.values()) project[Symbol.dispose]();
});

/** A project with the package, some types of Node.js, and the samples. */
function samples(types: string): { project: Project; files: string[] } {
  const files: string[] = [];
  const project = projects.get(types) ?? new Project();
  if (!projects.has(types)) {
    projects.set(types, project);
    const options = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--silent'];
    const packages = [tarball(), `@types/node@${types}`];
    execFileSync('npm', ['install', ...options, ...packages], { cwd: project.directory });
  }
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  for (const [, language = '', text = ''] of readme.matchAll(/^```([tj]s)\n([^]*?)^```/gm))
    files.push(project.write(`readme-${files.length}.m${language}`, text));
  expect(files.length).toBeGreaterThan(1);
  for (const name of readdirSync(join(ROOT, 'examples')))
    files.push(project.write(name, readFileSync(join(ROOT, 'examples', name), 'utf8')));
  return { project, files };
}

const cases = COMPILERS.flatMap(([version, types]) =>
  MODES.map((mode) => [version, ...mode, types] as const),
);
test.each(cases)(
  'TypeScript %s, module %s, moduleResolution %s, @types/node %s',
  (version, module, resolution, types) => {
    const { project, files } = samples(types);
    // Declarations are checked as well: skipLibCheck is off.
    const options = [
      '--strict',
      '--noEmit',
      '--allowJs',
      '--checkJs',
      '--target',
      'es2022',
      '--types',
      'node',
    ];
    // Since 6.0 files on the command line are refused beside a tsconfig.json, which a folder above might have.
    if (Number(version[0]) >= 6) options.push('--ignoreConfig');
    const compiler = join(tool(`typescript@${version}`), 'bin', 'tsc');
    expect(
      project.run(compiler, ...options, '--module', module, '--moduleResolution', resolution, ...files),
    ).toEqual({
      status: 0,
      stdout: '',
      stderr: '',
    });
  },
);
