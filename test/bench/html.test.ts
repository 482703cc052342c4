// SPDX-License-Identifier: MIT
import { css, html } from '../../lib/bench/html';

test('what is filled in is escaped, in text and in attributes', () => {
  const hostile = `<script>alert('1' & "2")</script>`;
  const safe = '&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)&lt;/script&gt;';
  expect(String(html`<p title="${hostile}">${hostile}</p>`)).toBe(`<p title="${safe}">${safe}</p>`);
});

test('what was escaped is not escaped again; lists are joined', () => {
  const words = ['a & b', 'c'].map((text) => html`<i>${text}</i>`);
  expect(String(html`<b>${words}${[1, ['2', html`<s>3</s>`]]}</b>`)).toBe(
    '<b><i>a &amp; b</i><i>c</i>12<s>3</s></b>',
  );
});

test('characters that are not for reading become visible', () => {
  expect(String(html`${'a\0b\x1b[31m\x7f\u0085\nc\u202ed\u2066'}`)).toBe(
    'a\ufffdb\ufffd[31m\ufffd\ufffd\ufffdc\ufffdd\ufffd',
  );
});

test('a style sheet is left as it is', () => {
  const sheet = css`
    a > b {
      font: 'x';
    }
  `;
  expect(String(sheet)).toContain(`a > b {\n      font: 'x';`);
  expect(String(html`<b>${sheet}</b>`)).toBe(`<b>${String(sheet)}</b>`);
});
