// SPDX-License-Identifier: MIT
/** Compiles every code sample of the documents, and runs those of docs/. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../support/wait';
import { PAGES } from './markdown';
import { compile, programsOf, toJavaScript, type Program } from './programs';
import { Stage, steady } from './stage';

jest.setTimeout(60_000);

const programs = new Map(PAGES.map((path) => [path, programsOf(path)]));

test('all samples compile', () => {
  expect(compile([...programs.values()].flat())).toBe('');
});

test('a sample that does not compile is told with its page', () => {
  const wrong = {
    name: 'docs/x.md:7',
    code: "import { connect } from 'vfio-user';\nconnect(7);\n",
    output: null,
  };
  expect(compile([wrong])).toMatch(/^docs-x\.md-7\.mts\(2,9\): error TS2345/);
});

describe('samples run', () => {
  const stage = new Stage();
  beforeEach(() => stage.open());
  afterAll(() => stage.close());

  /** Starts a program. One that serves a socket runs until it is ended, another one by itself. */
  async function start(program: Program): Promise<() => Promise<void>> {
    writeFileSync(join(stage.path, 'sample.mjs'), toJavaScript(program));
    const child = spawn(process.execPath, ['sample.mjs'], { cwd: stage.path, env: stage.env });
    const ended = once(child, 'close');
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (text: Buffer) => (stdout += text.toString()));
    child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
    const socket = /serve\('([\w.]+)'/.exec(program.code)?.[1];
    const finish = async (): Promise<void> => {
      if (socket !== undefined) child.kill('SIGTERM');
      await ended;
      // SIGTERM ends it, or it closes and ends by itself.
      const well = child.exitCode === 0 || (socket !== undefined && child.signalCode === 'SIGTERM');
      expect({ sample: program.name, stderr, well }).toEqual({
        sample: program.name,
        stderr: '',
        well: true,
      });
      if (program.output === null) return;
      expect(steady(stdout, stage.path)).toBe(steady(program.output, stage.path));
    };
    if (socket === undefined) await finish();
    else await until(() => existsSync(join(stage.path, socket)) || child.exitCode !== null);
    return finish;
  }

  const pages = [...programs].filter(([path, found]) => path.startsWith('docs/') && found.length > 0);
  test.each(pages)('those of %s', async (_, found) => {
    const serving: (() => Promise<void>)[] = [];
    try {
      for (const program of found) {
        const finish = await start(program);
        if (program.code.includes("serve('")) serving.push(finish);
      }
    } finally {
      for (const finish of serving) await finish();
    }
  });
});
