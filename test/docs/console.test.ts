// SPDX-License-Identifier: MIT
/**
 * Compares the commands of the documents with what the tool prints today. A `console` block has commands behind `$ `, each with
 * its output. `UPDATE_DOCS=1 npx jest test/docs/console` writes what is printed today into the pages.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PAGES, ROOT, readPage } from './markdown';
import { Stage, steady } from './stage';

jest.setTimeout(60_000);

/** The last line of a server that serves. */
const READY = 'Ctrl-C ends it.';
const UPDATE = process.env['UPDATE_DOCS'] !== undefined;
const stage = new Stage();
beforeEach(() => stage.open());
afterAll(() => stage.close());

/** What a command prints on both streams. A server is ended when it says how. */
async function run(command: string): Promise<string> {
  const child = spawn('sh', ['-c', `exec 2>&1; ${command}`], {
    cwd: stage.path,
    env: stage.env,
    detached: true,
  });
  let output = '';
  child.stdout.on('data', (text: Buffer) => {
    const before = output.includes(READY);
    output += text.toString();
    if (!before && output.includes(READY)) process.kill(-(child.pid ?? 0), 'SIGINT');
  });
  await once(child, 'close');
  return output.trimEnd();
}

const pages = PAGES.filter((path) => readPage(path).fences.some(({ language }) => language === 'console'));

test('there are commands to compare', () => {
  expect(pages.length).toBeGreaterThan(2);
});

test.each(pages)('commands of %s', async (path) => {
  for (const { language, text } of readPage(path).fences) {
    if (language !== 'console') continue;
    const [first, ...steps] = text.split(/^\$ /m);
    expect(first).toBe('');
    let printed = '';
    for (const step of steps) {
      const command = step.split('\n')[0] ?? '';
      // A server of the page takes the place of ours.
      if (command.includes(' serve ')) await stage.clear();
      const output = (await run(command)).replaceAll(stage.path, '/tmp/demo');
      printed += `$ ${command}\n${output === '' ? '' : `${output}\n`}`;
      if (command.includes(' serve ')) await stage.open();
    }
    // On a machine that others use, the figures of the benchmark are doubted, and it says so. No page does.
    const sure = printed.replace(/\n?do not trust these figures: .*/gi, '');
    if (UPDATE) {
      const page = readFileSync(join(ROOT, path), 'utf8');
      writeFileSync(
        join(ROOT, path),
        page.replace(text, () => sure.trimEnd()),
      );
    } else {
      expect(steady(text, stage.path)).toBe(steady(sure, stage.path));
    }
  }
});
