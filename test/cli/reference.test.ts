// SPDX-License-Identifier: MIT
/**
 * docs/cli.md and the manual page are made of the tables that the parser reads. `UPDATE_REFERENCE=1 npx jest reference` writes them
 * again; prettier aligns the tables.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bench } from '../../lib/cli/bench';
import { bind, unbind } from '../../lib/cli/bind';
import { completionScript } from '../../lib/cli/completion';
import { devices } from '../../lib/cli/devices';
import { control } from '../../lib/cli/control';
import { info } from '../../lib/cli/info';
import { EXIT_CODES, manualPage, optionTable } from '../../lib/cli/reference';
import { report } from '../../lib/cli/report';
import { serveNvme } from '../../lib/cli/serve';
import { serveVfio } from '../../lib/cli/serve-vfio';
import { Scratch, cli } from './run-cli';

const ROOT = join(__dirname, '..', '..');
const DOCS = join(ROOT, 'docs', 'cli.md');
const MANUAL = join(ROOT, 'man', 'vfio-user.1');
const SPECS = [info, bench, report, serveNvme, serveVfio, control, devices, bind, unbind].map(
  ({ spec }) => spec,
);
const update = process.env['UPDATE_REFERENCE'] === '1';

const scratch = new Scratch();
afterAll(() => {
  scratch.remove();
});

/** The part of a text between two comments. */
function part(text: string, name: string): string {
  const found = new RegExp(`<!-- options: ${name} -->\n([^]*?)<!-- end -->`).exec(text)?.[1];
  if (found === undefined) throw new Error(`docs/cli.md has no table of ${name}`);
  return found;
}

/** The cells of a table, however they are aligned. */
function cells(table: string): string[] {
  return table
    .trim()
    .split('\n')
    .map((line) =>
      line
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim().replace(/^-+$/, '---'))
        .join('|'),
    );
}

const WITH_OPTIONS = SPECS.filter(({ options }) => Object.keys(options).length > 0);

test.each(WITH_OPTIONS.map((spec) => [spec.name, spec] as const))(
  'docs/cli.md has the options of %s',
  (name, spec) => {
    const table = optionTable(spec);
    const text = readFileSync(DOCS, 'utf8');
    if (update) {
      const mark = `<!-- options: ${name} -->`;
      writeFileSync(
        DOCS,
        text.replace(`${mark}\n${part(text, name)}`, () => `${mark}\n\n${table}\n\n`),
      );
    }
    expect(cells(part(readFileSync(DOCS, 'utf8'), name))).toEqual(cells(table));
  },
);

test('docs/errors.md has the exit codes', () => {
  const text = readFileSync(join(ROOT, 'docs', 'errors.md'), 'utf8');
  for (const [code] of EXIT_CODES)
    expect(text).toMatch(new RegExp(`\\n\\| ${code.replace('+', '\\+')} +\\| `));
});

test('the manual page is that of the tool', async () => {
  const { stdout } = await cli(scratch, 'help', '--man');
  if (update) writeFileSync(MANUAL, stdout);
  expect(readFileSync(MANUAL, 'utf8')).toBe(stdout);
  expect(stdout).toContain(manualPage(SPECS).split('\n.SH EXIT STATUS')[0]!.split('\n.SH BENCH\n')[1]!);
  for (const name of Object.keys(bench.spec.options)) expect(stdout).toContain(name.replaceAll('-', '\\-'));
});

describe('completion', () => {
  const installed = (program: string): boolean => spawnSync('which', [program]).status === 0;

  test('bash completes commands, options and words', () => {
    const complete = (...words: string[]): string[] => {
      const script = `${completionScript('bash', SPECS)}
COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _vfio_user; printf '%s\\n' "\${COMPREPLY[@]}"`;
      return execFileSync('bash', ['-c', script], { encoding: 'utf8', cwd: scratch.path }).trim().split('\n');
    };
    expect(complete('vfio-user', '')).toEqual([
      'info',
      'bench',
      'report',
      'serve',
      'control',
      'devices',
      'bind',
      'unbind',
      '--help',
      '--version',
    ]);
    expect(complete('vfio-user', 'bench', '--latency')).toEqual([
      '--latency_target',
      '--latency_window',
      '--latency_percentile',
    ]);
    expect(complete('vfio-user', 'bench', '--completion', '')).toEqual(['poll', 'adaptive', 'interrupt']);
    expect(complete('vfio-user', 'serve', 'n')).toEqual(['nvme']);
    writeFileSync(scratch.file('job.fio'), '');
    expect(complete('vfio-user', 'bench', 'job')).toEqual(['job.fio']);
    expect(complete('vfio-user', 'bench', '--output', 'job')).toEqual(['job.fio']);
  });

  for (const shell of ['zsh', 'fish'] as const)
    (installed(shell) ? test : test.skip)(`${shell} takes its script`, () => {
      const file = scratch.file(`completion.${shell}`);
      writeFileSync(file, completionScript(shell, SPECS));
      expect(execFileSync(shell, ['-n', file], { encoding: 'utf8' })).toBe('');
    });
});
