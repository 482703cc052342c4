// SPDX-License-Identifier: MIT
import { existsSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { INDEX, PAGES, ROOT, readPage } from './markdown';

const pages = new Map(PAGES.map((path) => [path, readPage(path)]));

/** What is wrong with a link; null when nothing is. */
function problem(from: string, target: string): string | null {
  if (/^https?:\/\//.test(target)) return null;
  if (/^[a-z]+:|^\//.test(target)) return 'is neither relative nor of the web';
  const [path = '', anchor] = target.split('#');
  const file = path === '' ? from : relative(ROOT, join(ROOT, dirname(from), path));
  if (file.startsWith('..')) return 'leads out of the repository';
  if (!existsSync(join(ROOT, file))) return 'leads to nothing';
  if (anchor === undefined) return null;
  if (statSync(join(ROOT, file)).isDirectory()) return 'has an anchor in a folder';
  return readPage(file).anchors.has(anchor) ? null : `has an anchor that ${file} lacks`;
}

test.each(PAGES)('links of %s', (path) => {
  const { links } = pages.get(path)!;
  const broken = links.flatMap(({ target, line }) => {
    const wrong = problem(path, target);
    return wrong === null ? [] : [`${path}:${line}: (${target}) ${wrong}`];
  });
  expect(broken).toEqual([]);
});

test('what a broken link is', () => {
  expect(problem('docs/cli.md', 'nowhere.md')).toBe('leads to nothing');
  expect(problem('docs/cli.md', '#no-such-heading')).toBe('has an anchor that docs/cli.md lacks');
  expect(problem('docs/cli.md', '../../elsewhere')).toBe('leads out of the repository');
  expect(problem('docs/cli.md', '/docs/cli.md')).toBe('is neither relative nor of the web');
  expect(problem('README.md', 'docs/cli.md#bench')).toBeNull();
});

test('the index leads to every page, once in its chapters', () => {
  const { links } = pages.get(INDEX)!;
  const reached = new Set(links.map(({ target }) => join('docs', target.split('#')[0] ?? '')));
  expect(PAGES.filter((path) => path !== INDEX && path !== 'README.md' && !reached.has(path))).toEqual([]);
});

test.each([
  ...['error codes', 'connect options', 'AbortSignal', 'huge pages', 'Docker', 'memlock', 'RegisterFile'],
  ...[
    'NvmeStatusError',
    'IoQueue',
    'QueuePair',
    'diagnostics channels',
    'Alpine',
    'arm64',
    'examples',
    'libvirt',
  ],
  ...['cloud-hypervisor', 'QEMU', 'SPDK', 'exit codes', 'NODE_DEBUG'],
])('%s is in the index, with a link to a page that has the word', (word) => {
  const rows = pages
    .get(INDEX)!
    .text.split('\n')
    .filter((line) => line.startsWith('|'));
  const row = rows.find((line) => line.includes(word)) ?? '';
  const page = pages.get(join('docs', /\]\(([^)#]+)/.exec(row)?.[1] ?? ''));
  expect(page?.text.toLowerCase().includes(word.toLowerCase())).toBe(true);
});

test('a page has one title, which comes first', () => {
  for (const { path, text, headings } of pages.values()) {
    const titles = headings.filter(({ level }) => level === 1);
    expect([path, text.startsWith('# '), titles.length]).toEqual([path, true, 1]);
  }
});
