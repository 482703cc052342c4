// SPDX-License-Identifier: MIT
/** What the tests of the documents need to know of Markdown. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** The repository. */
export const ROOT = join(__dirname, '..', '..');
/** The page that lists all others. */
export const INDEX = 'docs/README.md';
/** Pages that are checked, as paths within the repository. */
export const PAGES = [
  'README.md',
  'CHANGELOG.md',
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** A fenced block. */
export interface Fence {
  /** The word behind the opening fence. */
  readonly language: string;
  readonly text: string;
  /** Number of its first line of text, from 1 on. */
  readonly line: number;
  /** True when nothing but empty lines is between this block and the one before. */
  readonly follows: boolean;
}

export interface Link {
  readonly target: string;
  readonly line: number;
}

export interface Heading {
  /** 1 for the title. */
  readonly level: number;
  readonly text: string;
}

/** A page, taken apart. */
export interface Page {
  readonly path: string;
  readonly text: string;
  readonly fences: readonly Fence[];
  readonly headings: readonly Heading[];
  /** What a link can name behind `#`, as GitHub makes it of the headings. */
  readonly anchors: ReadonlySet<string>;
  readonly links: readonly Link[];
}

/** @param path within the repository */
export function readPage(path: string): Page {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const fences: Fence[] = [];
  const headings: Heading[] = [];
  const anchors = new Set<string>();
  const links: Link[] = [];
  let open: { readonly language: string; readonly first: number; readonly follows: boolean } | null = null;
  let proseSince = true;
  const lines = text.split('\n');
  for (const [index, line] of lines.entries()) {
    const fence = /^```(\S*)/.exec(line);
    if (open !== null) {
      if (line !== '```') continue;
      const { language, first, follows } = open;
      fences.push({ language, text: lines.slice(first, index).join('\n'), line: first + 1, follows });
      open = null;
      proseSince = false;
    } else if (fence !== null) {
      open = { language: fence[1] ?? '', first: index + 1, follows: !proseSince };
    } else {
      if (line.trim() !== '') proseSince = true;
      const [, marks = '', heading] = /^(#{1,6}) (.*)$/.exec(line) ?? [];
      if (heading !== undefined) {
        headings.push({ level: marks.length, text: heading });
        anchors.add(anchorOf(heading, anchors));
      }
      const prose = line.replace(/`[^`]*`/g, '``');
      for (const { 1: target = '' } of prose.matchAll(/\[[^\]]*\]\(([^)\s]*)\)/g)) {
        links.push({ target, line: index + 1 });
      }
    }
  }
  if (open !== null) throw new Error(`${path}: a fence is not closed`);
  return { path, text, fences, headings, anchors, links };
}

function anchorOf(heading: string, taken: ReadonlySet<string>): string {
  const text = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
  const anchor = text.replace(/[^\p{L}\p{N}\-_ ]/gu, '').replace(/ /g, '-');
  for (let number = 0; ; number++) {
    const name = number === 0 ? anchor : `${anchor}-${number}`;
    if (!taken.has(name)) return name;
  }
}
