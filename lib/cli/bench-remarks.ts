// SPDX-License-Identifier: MIT
import { gapTexts } from '../bench/gap';
import type { Remark } from '../bench/html-page';
import { allDirections, bandwidth, iops, mergeResults } from '../bench/job-result';
import { formatBandwidth, formatCount } from '../bench/units';
import type { FinishedRun, MeasuredPart } from './finished-run';
import { printable } from './output';

/** Part of a wanted rate that counts as reached: a run ends with I/Os in flight. */
const RATE_TOLERANCE = 0.98;

/** What a run has to say beyond its tables: that it was cut short, whether its figures can be trusted, what became of its aims. */
export function remarks(run: FinishedRun): Remark[] {
  const { interrupted, failure, parts } = run;
  const cutShort: Remark = {
    kind: 'warning',
    heading: 'Interrupted',
    text: 'the run did not come to its end; these are the results up to then',
  };
  return [
    ...(failure === undefined
      ? []
      : [{ kind: 'bad', heading: 'Failed', text: printable(failure.message) } as const]),
    ...verification(run),
    ...parts.flatMap((part) => gapTexts(part.gaps ?? []).map((text) => of(parts, part, GAP, text))),
    ...parts.flatMap((part) => part.doubts?.map((text) => of(parts, part, DOUBT, text)) ?? []),
    ...parts.flatMap((part) => missedRate(parts, part)),
    ...parts.flatMap((part) => foundDepth(parts, part)),
    ...steadiness(run),
    ...(interrupted ? [cutShort] : []),
  ];
}

const GAP = { kind: 'warning', heading: 'Gap' } as const;
const DOUBT = { kind: 'warning', heading: 'Do not trust these figures' } as const;

/** A remark about a part, which is named where there are several. */
function of(
  parts: readonly MeasuredPart[],
  { name, target }: MeasuredPart,
  remark: Pick<Remark, 'kind' | 'heading'>,
  text: string,
): Remark {
  return { ...remark, text: parts.length === 1 ? text : `${name}, ${target}: ${text}` };
}

function verification({ parts, interrupted, failure }: FinishedRun): Remark[] {
  if (parts.every(({ options }) => options['verify'] === undefined)) return [];
  const { verified, mismatches } = mergeResults(parts.map(({ result }) => result));
  if (verified === 0)
    return [{ kind: 'warning', heading: 'Verify', text: 'nothing was verified: the run ended before' }];
  const differ = mismatches === 0 ? 'all as written' : `${mismatches} differ`;
  const cutShort = interrupted || failure !== undefined;
  const text = `${verified} blocks read back, ${differ}${cutShort ? '; others were written and not read back' : ''}`;
  return [{ kind: mismatches === 0 ? 'good' : 'bad', heading: 'Verify', text }];
}

function missedRate(parts: readonly MeasuredPart[], part: MeasuredPart): Remark[] {
  const { wanted, result } = part;
  if (wanted === undefined) return [];
  const [reached, text] =
    wanted.unit === 'iops'
      ? [iops(allDirections(result)), (rate: number): string => `${formatCount(rate)} IOPS`]
      : [bandwidth(allDirections(result)), formatBandwidth];
  if (reached >= wanted.rate * RATE_TOLERANCE) return [];
  const missed = { kind: 'warning', heading: 'Rate not reached' } as const;
  return [
    of(
      parts,
      part,
      missed,
      `${text(reached)} of the wanted ${text(wanted.rate)}; the latency is that of full load`,
    ),
  ];
}

/** How many I/Os in flight keep the latency that was asked for. */
function foundDepth(parts: readonly MeasuredPart[], part: MeasuredPart): Remark[] {
  const { foundDepths } = part.result;
  const target = part.options['latency_target'];
  if (target === undefined) return [];
  const heading = 'Latency target';
  if (foundDepths.length === 0)
    return [of(parts, part, { kind: 'warning', heading }, 'the run ended before the search did')];
  const missed = foundDepths.filter(({ met }) => !met).length;
  if (missed > 0) {
    const who = foundDepths.length === 1 ? '' : ` by ${missed} of ${foundDepths.length} jobs`;
    const text = `missed${who} even with one I/O in flight, with which they were measured`;
    return [of(parts, part, { kind: 'warning', heading }, text)];
  }
  const depths = foundDepths.map(({ depth }) => depth).join(', ');
  const most = part.options.iodepth;
  const limit = foundDepths.some(({ depth }) => String(depth) === most) ? '; --iodepth allows no more' : '';
  return [
    of(
      parts,
      part,
      { kind: 'good', heading },
      `kept with ${depths} in flight, with which it was measured${limit}`,
    ),
  ];
}

function steadiness({ steady, parts }: FinishedRun): Remark[] {
  if (steady === undefined) return [];
  const heading = 'Steady state';
  const seconds = mergeResults(parts.map(({ result }) => result)).runtimeMs / 1000;
  return [
    steady.attained
      ? { kind: 'good', heading, text: `attained after ${seconds.toFixed(1)} s, which ended the run` }
      : { kind: 'warning', heading, text: `not attained in ${seconds.toFixed(1)} s` },
  ];
}
