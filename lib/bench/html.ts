// SPDX-License-Identifier: MIT

/** Text that is HTML already. Only {@link html} and {@link css} make it, so that nothing gets into a page unescaped. */
export class Markup {
  readonly #text: string;

  private constructor(text: string) {
    this.#text = text;
  }

  /** Joins the text of the page's author with values, which are escaped. */
  static of(literals: readonly string[], values: readonly Fragment[]): Markup {
    return new Markup(literals.map((literal, index) => literal + render(values[index] ?? '')).join(''));
  }

  toString(): string {
    return this.#text;
  }
}

/** What may stand in a template of {@link html}. */
export type Fragment = string | number | Markup | readonly Fragment[];

/**
 * A template of HTML or SVG. Strings and numbers in it are escaped, for text as well as for quoted attributes. Lists are
 * joined. What this function has made goes in as it is.
 */
export function html(literals: TemplateStringsArray, ...values: readonly Fragment[]): Markup {
  return Markup.of(literals, values);
}

/** A style sheet for a template of {@link html}. It is the author's text alone; nothing can be filled in. */
export function css(literals: TemplateStringsArray): Markup {
  return Markup.of(literals, []);
}

function render(value: Fragment): string {
  if (value instanceof Markup) return value.toString();
  if (typeof value === 'string' || typeof value === 'number') return escape(String(value));
  return value.map(render).join('');
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Also makes visible the control characters, which HTML does not allow, and those that change the direction of the text. */
function escape(text: string): string {
  return text
    .replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
    .replace(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, '\ufffd');
}
