// SPDX-License-Identifier: MIT
import { cpus, release } from 'node:os';
import { MISTAKES, type Mistake, type Tally } from './tally';

const WIDTH = 26;

/** The machine, as a line. */
export function machine(): string {
  return `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores, Linux ${release()}, Node ${process.version}`;
}

/** The table at the end of a run. */
export function report(tally: Tally, gap: string): string {
  const counts = (of: ReadonlyMap<string, number>): string =>
    [...of].map(([what, count]) => `${what} ${count}`).join(', ') || 'none';
  const rows: [string, string][] = [
    ['rounds', String(tally.rounds)],
    ['faults', counts(tally.faults)],
    ['I/Os acknowledged', `${tally.ios}, ${tally.flushes} flushes among them`],
    ['I/Os that failed rightly', counts(tally.failed)],
    ['verified', `${(tally.verifiedBytes / 2 ** 20).toFixed(0)} MiB`],
    ...Object.entries(MISTAKES).map(([kind, text]): [string, string] => [
      text,
      String(tally.count(kind as Mistake)),
    ]),
    ...(tally.gaps.length > 0 ? [[gap, gapText(tally.gaps)] as [string, string]] : []),
    ['took', `${tally.seconds.toFixed(0)} s`],
    ...[...tally.notes].map((note): [string, string] => ['note', note]),
  ];
  const lines = rows.map(([name, text]) => `${name.padEnd(WIDTH)}${text}`);
  return [...tally.texts, ...lines, ...tally.figures].join('\n');
}

function gapText(gaps: readonly number[]): string {
  const sorted = [...gaps].sort((a, b) => a - b);
  const at = (share: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number).toFixed(1);
  return `median ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms, of ${sorted.length}`;
}
