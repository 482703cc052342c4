// SPDX-License-Identifier: MIT
import { css } from './html';

/** The style sheet of the report, a constant without anything to fill in. The palette is one that colour-blind readers tell apart. */
export const STYLE = css`
  :root {
    color-scheme: light dark;
    --page: #ffffff;
    --panel: #f6f7f9;
    --ink: #16191d;
    --quiet: #5b6470;
    --rule: #dde1e6;
    --good: #16703c;
    --warning: #8a5a00;
    --bad: #b3261e;
    --c0: #1d62c9;
    --c1: #c2500a;
    --c2: #157f5f;
    --c3: #8b3fb0;
    --c4: #a07a00;
    --c5: #5b6470;
  }
  @media (prefers-color-scheme: dark) {
    :root {
      --page: #14171b;
      --panel: #1c2026;
      --ink: #e8eaed;
      --quiet: #9aa4b0;
      --rule: #333a43;
      --good: #6fd39a;
      --warning: #f0bd5a;
      --bad: #ff8a80;
      --c0: #6ea8fe;
      --c1: #ff9a57;
      --c2: #4fc9a4;
      --c3: #cf95ee;
      --c4: #e3c04a;
      --c5: #9aa4b0;
    }
  }
  * {
    box-sizing: border-box;
  }
  body {
    margin: 0;
    background: var(--page);
    color: var(--ink);
    font:
      15px/1.5 system-ui,
      -apple-system,
      'Segoe UI',
      Roboto,
      'Helvetica Neue',
      Arial,
      sans-serif;
  }
  main {
    max-width: 904px;
    margin: 0 auto;
    padding: 32px 32px 24px;
  }
  h1 {
    font-size: 26px;
    line-height: 1.25;
    margin: 0 0 4px;
    letter-spacing: -0.01em;
  }
  h2 {
    font-size: 18px;
    margin: 40px 0 12px;
    padding-top: 16px;
    border-top: 1px solid var(--rule);
  }
  h3 {
    font-size: 15px;
    margin: 0;
  }
  p {
    margin: 0;
  }
  .quiet,
  footer {
    color: var(--quiet);
    overflow-wrap: anywhere;
  }
  .remark {
    margin-top: 16px;
    padding: 8px 12px;
    background: var(--panel);
    border-left: 4px solid;
    overflow-wrap: anywhere;
  }
  .remark.good {
    border-color: var(--good);
  }
  .remark.good b {
    color: var(--good);
  }
  .remark.warning {
    border-color: var(--warning);
  }
  .remark.warning b {
    color: var(--warning);
  }
  .remark.bad {
    border-color: var(--bad);
  }
  .remark.bad b {
    color: var(--bad);
  }
  .tiles {
    display: grid;
    grid-template-columns: repeat(6, 1fr);
    gap: 8px;
    margin: 24px 0;
  }
  .tiles div {
    background: var(--panel);
    border-radius: 6px;
    padding: 10px 12px;
  }
  .tiles dt {
    color: var(--quiet);
    font-size: 13px;
  }
  .tiles dd {
    margin: 0;
    font-size: 20px;
    font-weight: 600;
    white-space: nowrap;
    font-variant-numeric: tabular-nums;
  }
  .scroll {
    overflow-x: auto;
  }
  table {
    border-collapse: collapse;
    width: 100%;
    margin: 0 0 8px;
    font-variant-numeric: tabular-nums;
  }
  caption {
    text-align: left;
    font-weight: 600;
    padding: 4px 0 6px;
  }
  th,
  td {
    padding: 4px 12px 4px 0;
    text-align: right;
    white-space: nowrap;
    border-bottom: 1px solid var(--rule);
    vertical-align: top;
  }
  th {
    font-weight: 500;
    color: var(--quiet);
  }
  th:first-child {
    text-align: left;
  }
  td:last-child,
  th:last-child {
    padding-right: 0;
  }
  table.facts td {
    text-align: left;
    white-space: normal;
    overflow-wrap: anywhere;
    width: 70%;
  }
  .charts {
    display: flex;
    flex-wrap: wrap;
    gap: 16px;
  }
  .chart {
    margin: 0 0 16px;
    flex: 1 1 100%;
  }
  .chart.half {
    flex: 1 1 calc(50% - 8px);
    min-width: 0;
  }
  .chart > svg {
    display: block;
    width: 100%;
    height: auto;
  }
  .chart > svg.narrow {
    display: none;
  }
  figcaption {
    display: flex;
    flex-wrap: wrap;
    justify-content: space-between;
    gap: 0 16px;
    margin-bottom: 4px;
  }
  .half figcaption {
    display: block;
  }
  .half .legend span {
    margin: 0 12px 0 0;
  }
  table.percentiles {
    width: auto;
    min-width: 50%;
  }
  .legend {
    color: var(--quiet);
    font-size: 13px;
  }
  .legend span {
    margin-left: 12px;
  }
  .legend svg {
    vertical-align: middle;
  }
  svg {
    font:
      12px system-ui,
      -apple-system,
      'Segoe UI',
      Roboto,
      Arial,
      sans-serif;
  }
  .labels {
    fill: var(--quiet);
  }
  .grid {
    stroke: var(--rule);
    fill: none;
  }
  .frame {
    stroke: var(--quiet);
    fill: none;
  }
  .line {
    fill: none;
    stroke-width: 2;
    stroke-linejoin: round;
  }
  .s0 {
    --c: var(--c0);
  }
  .s1 {
    --c: var(--c1);
  }
  .s2 {
    --c: var(--c2);
  }
  .s3 {
    --c: var(--c3);
  }
  .s4 {
    --c: var(--c4);
  }
  .s5 {
    --c: var(--c5);
  }
  .line {
    stroke: var(--c);
  }
  .bars,
  .marks {
    fill: var(--c);
  }
  .bars {
    fill-opacity: 0.65;
  }
  .line.s1 {
    stroke-dasharray: 7 3;
  }
  .line.s2 {
    stroke-dasharray: 2 3;
  }
  .line.s3 {
    stroke-dasharray: 9 3 2 3;
  }
  .line.s4 {
    stroke-dasharray: 4 2;
  }
  .line.s5 {
    stroke-dasharray: 12 4;
  }
  footer {
    margin-top: 32px;
    font-size: 13px;
  }
  @media (max-width: 700px) {
    main {
      padding: 20px 16px;
    }
    h1 {
      font-size: 22px;
    }
    .tiles {
      grid-template-columns: repeat(2, 1fr);
    }
    .chart.half {
      flex-basis: 100%;
    }
    .chart > svg.wide {
      display: none;
    }
    .chart > svg.narrow {
      display: block;
    }
    table.facts td {
      width: 60%;
    }
  }
  @media print {
    :root {
      --page: #fff;
      --panel: #f6f7f9;
      --ink: #000;
      --quiet: #444;
      --rule: #ccc;
    }
    main {
      padding: 0;
    }
    figure,
    table {
      break-inside: avoid;
    }
  }
`;
