// SPDX-License-Identifier: MIT
import { html, type Markup } from './html';
import { STYLE } from './html-report-style';

/** Something that a reader must know before reading the numbers. */
export interface Remark {
  readonly kind: 'good' | 'warning' | 'bad';
  /** One word, such as `Verified`. */
  readonly heading: string;
  readonly text: string;
}

/** The remarks, one below the other. */
export function remarkList(remarks: readonly Remark[]): Markup {
  return html`${remarks.map(({ kind, heading, text }) => html`<p class="remark ${kind}"><b>${heading}</b>: ${text}</p>`)}`;
}

/** A page that needs nothing else: no script, no font, no picture, no network. */
export function page(title: string, body: Markup): string {
  // Even if a way were found around the escaping, a browser runs no script and loads nothing.
  return `<!DOCTYPE html>\n${String(
    html`<html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <title>${title}</title>
        <style>
          ${STYLE}
        </style>
      </head>
      <body>
        <main>${body}</main>
      </body>
    </html>`,
  )}\n`;
}

/** A table of numbers. If it is wider than the screen it scrolls, also by keys. */
export function numberTable(
  kind: string,
  caption: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
): Markup {
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0">
    <table class="${kind}">
      <caption>
        ${caption}
      </caption>
      <thead>
        <tr>
          ${head.map((name) => (name === '' ? html`<td></td>` : html`<th scope="col">${name}</th>`))}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          ([name = '', ...cells]) =>
            html`<tr>
              <th scope="row">${name}</th>
              ${cells.map((cell) => html`<td>${cell}</td>`)}
            </tr> `,
        )}
      </tbody>
    </table>
  </div>`;
}
