// SPDX-License-Identifier: MIT
import { html, type Markup } from './html';

/** A place on an axis that has a label. `at` is in the axis' own units. */
export interface Tick {
  readonly at: number;
  readonly label: string;
}

/** An axis: its range, which must not be empty, and its labels. */
export interface Axis {
  readonly from: number;
  readonly to: number;
  readonly ticks: readonly Tick[];
  readonly title: string;
}

/**
 * Something to draw, in units of the axes: a line in steps, each of which ends at `x` and began where the one before ended; or
 * bars from 0 upwards, each of which begins at `x`.
 */
export interface ChartSeries {
  readonly name: string;
  readonly shape: 'steps' | 'bars';
  readonly points: readonly Point[];
  /** Points to be marked, with text for the mouse. */
  readonly marks?: readonly (Point & { readonly label: string })[];
}

/** `width` is the extent of a bar along the x axis; `label` is its text for the mouse. */
export interface Point {
  readonly x: number;
  readonly y: number;
  readonly width?: number;
  readonly label?: string;
}

/** A chart with all that it needs to be drawn at any size. */
export interface Chart {
  /** Unique in the page; letters and dashes. */
  readonly id: string;
  readonly title: string;
  /** What the chart shows, in a sentence with numbers, for those who do not see it. */
  readonly description: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly ChartSeries[];
}

/** Number of series whose colours differ. */
export const SERIES_COLOURS = 6;

const MARGIN = { top: 12, right: 16, bottom: 46 } as const;
/** Room for a label, in pixels for each of its characters and between two. */
const CHARACTER = 7;
const GAP = 8;

/** Widths at which a chart is drawn: for a screen and for a telephone. The style sheet shows one of them. */
const WIDE = 840;
const NARROW = 340;

/**
 * A figure with the chart drawn twice, in vector graphics: text that is scaled down with a picture would be unreadable on
 * a telephone. One of the two is hidden, from readers of the screen too.
 *
 * @param half true for a chart that shares a row with another where there is room
 */
export function chartFigure(chart: Chart, half = false): Markup {
  return html`<figure class="${half ? 'chart half' : 'chart'}">
    <figcaption>
      <h3>${chart.title}</h3>
      ${chart.series.length > 1 ? legend(chart.series) : ''}
    </figcaption>
    ${draw(chart, half ? WIDE / 2 - 8 : WIDE, half ? 240 : 320, 'wide')} ${draw(chart, NARROW, 260, 'narrow')}
  </figure>`;
}

function legend(series: readonly ChartSeries[]): Markup {
  return html`<p class="legend">
    ${series.map(
      ({ name }, index) =>
        html`<span
          ><svg width="24" height="10" aria-hidden="true">
            <path class="line s${index}" d="M0 5H24" />
          </svg>
          ${name}</span
        >`,
    )}
  </p>`;
}

function draw(chart: Chart, width: number, height: number, variant: string): Markup {
  const { x, y, series } = chart;
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const left = 12 + CHARACTER * Math.max(...y.ticks.map(({ label }) => label.length));
  const toX = scale(x, left, right);
  const toY = scale(y, bottom, MARGIN.top);
  const id = `${chart.id}-${variant}`;
  return html`<svg
    class="${variant}"
    viewBox="0 0 ${width} ${height}"
    role="img"
    aria-labelledby="${id}-title ${id}-desc"
  >
    <title id="${id}-title">${chart.title}</title>
    <desc id="${id}-desc">${chart.description}</desc>
    <g class="grid">
      ${y.ticks.map(({ at }) => html`<path d="M${left} ${toY(at)}H${right}" />`)}
      ${x.ticks.map(({ at }) => html`<path d="M${toX(at)} ${MARGIN.top}V${bottom}" />`)}
    </g>
    <g class="labels">
      ${y.ticks.map(
        ({ at, label }) => html`<text x="${left - 8}" y="${toY(at) + 4}" text-anchor="end">${label}</text>`,
      )}
      ${withRoom(x.ticks, toX, right).map(
        ({ at, label }) => html`<text x="${toX(at)}" y="${bottom + 18}" text-anchor="middle">${label}</text>`,
      )}
      <text class="axis" x="${(left + right) / 2}" y="${height - 6}" text-anchor="middle">${x.title}</text>
    </g>
    ${series.map((each, index) => drawSeries(each, index, toX, toY))}
    <path class="frame" d="M${left} ${MARGIN.top}V${bottom}H${right}" />
  </svg>`;
}

type Scale = (value: number) => number;

function scale({ from, to }: Axis, start: number, end: number): Scale {
  return (value) =>
    round(start + ((Math.min(to, Math.max(from, value)) - from) / (to - from)) * (end - start));
}

/** A tenth of a pixel is enough. */
function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}

/** The ticks whose labels do not run into the one before, nor out of the picture. */
function withRoom(ticks: readonly Tick[], toX: Scale, right: number): Tick[] {
  const chosen: Tick[] = [];
  let free = 0;
  for (const tick of ticks) {
    const half = (tick.label.length * CHARACTER) / 2;
    if (toX(tick.at) - half < free || toX(tick.at) + half > right + MARGIN.right) continue;
    chosen.push(tick);
    free = toX(tick.at) + half + GAP;
  }
  return chosen;
}

function drawSeries(series: ChartSeries, index: number, toX: Scale, toY: Scale): Markup {
  const { shape, points, marks = [] } = series;
  if (shape === 'bars') return html`<g class="bars s${index}">${bars(points, toX, toY)}</g>`;
  return html`<path class="line s${index}" d="${steps(points, toX, toY)}" />
    <g class="marks s${index}">
      ${marks.map(
        ({ x, y, label }) =>
          html`<circle cx="${toX(x)}" cy="${toY(y)}" r="3.5"><title>${label}</title></circle>`,
      )}
    </g>`;
}

function steps(points: readonly Point[], toX: Scale, toY: Scale): string {
  const [first] = points;
  if (first === undefined) return '';
  let text = `M${toX(-Infinity)} ${toY(first.y)}`;
  points.forEach(({ x, y }, index) => {
    const next = points[index + 1];
    // Many points may fall on the same pixel; the last of them tells.
    if (next !== undefined && toX(next.x) === toX(x)) return;
    text += `V${toY(y)}H${toX(x)}`;
  });
  return text;
}

function bars(points: readonly Point[], toX: Scale, toY: Scale): Markup[] {
  return points.flatMap(({ x, y, width = 0, label = '' }) => {
    if (y <= 0) return [];
    const left = toX(x);
    const whole = toX(x + width) - left;
    // The least bar is a pixel high: one I/O of millions is an outlier that must be seen.
    const top = Math.min(toY(y), toY(0) - 1);
    return html`<rect
      x="${left}"
      y="${top}"
      width="${round(Math.max(1, whole > 4 ? whole - 1 : whole))}"
      height="${round(toY(0) - top)}"
    >
      <title>${label}</title>
    </rect>`;
  });
}
