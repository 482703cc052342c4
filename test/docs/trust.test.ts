// SPDX-License-Identifier: MIT
/** docs/trust.md names the tests that show what it promises. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '..', '..');

/** A promise: its first words, and the tests that follow it. */
interface Promised {
  readonly section: string;
  readonly text: string;
  readonly tests: readonly { readonly file: string; readonly titles: readonly string[] }[];
}

function promises(): Promised[] {
  const found: Promised[] = [];
  for (const part of readFileSync(join(ROOT, 'docs', 'trust.md'), 'utf8')
    .split(/^## /m)
    .slice(1)) {
    const section = part.slice(0, part.indexOf('\n'));
    for (const item of part.split(/^- /m).slice(1)) {
      const [text = '', ...references] = item.replace(/\n(?! *- )\s*/g, ' ').split(/\n {2}- /);
      const tests = references.map((reference) => ({
        file: /^`([^`]+)`/.exec(reference)?.[1] ?? reference,
        titles: [...reference.matchAll(/"([^"]+)"/g)].map(([, title]) => title ?? ''),
      }));
      found.push({ section, text, tests });
    }
  }
  return found;
}

const all = promises();

test('every promise names the tests that show it', () => {
  const cannot = all.filter(({ section }) => section.includes('cannot'));
  expect(cannot.length).toBeGreaterThan(14);
  expect(cannot.filter(({ tests }) => tests.length === 0).map(({ text }) => text)).toEqual([]);
});

test('every test that is named exists', () => {
  const named = all.flatMap(({ tests }) => tests);
  expect(named.length).toBeGreaterThan(30);
  const missing = named.flatMap(({ file, titles }) => {
    if (!file.endsWith('.test.ts') || !existsSync(join(ROOT, file))) return [file];
    const source = readFileSync(join(ROOT, file), 'utf8').replace(/\\'/g, "'");
    // As the argument of a call: what a comment says is no test.
    const exists = (title: string): boolean =>
      [`'${title}'`, `"${title}"`, `, ${title}\``].some((text) => source.includes(text));
    return titles.filter((title) => !exists(title)).map((title) => `${file}: ${title}`);
  });
  expect(missing).toEqual([]);
});
