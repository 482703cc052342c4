// SPDX-License-Identifier: MIT
import { resolve } from 'node:path';
import { parseBackend } from '../../lib/cli/backend-text';

const GIB = 2 ** 30;

test.each<[string, Record<string, unknown>]>([
  ['null', { kind: 'null', size: GIB }],
  ['memory,size=1m', { kind: 'memory', size: 1 << 20 }],
  [`file=${__filename}`, { kind: 'file', path: __filename, size: undefined, direct: undefined }],
  ['file=a,,b.img,size=64k,direct', { kind: 'file', path: resolve('a,b.img'), size: 65_536, direct: true }],
  ['file=new.img,size=512,direct=0', { kind: 'file', path: resolve('new.img'), size: 512, direct: false }],
  [
    'module=back.end,a=1,b,c=x=y',
    { kind: 'module', path: resolve('back.end'), options: { a: '1', b: '1', c: 'x=y' } },
  ],
  ['./backend.mjs,size=7', { kind: 'module', path: resolve('backend.mjs'), options: { size: '7' } }],
  ['backend.js', { kind: 'module', path: resolve('backend.js'), options: {} }],
])('%s', (text, backend) => {
  expect(parseBackend(text).backend).toEqual(backend);
});

test.each([
  ['nbd=nbd://host/disk,timeout=30s', 'nbd://host/disk', 30],
  ['nbd+unix:///?socket=/run/nbd.sock', 'nbd+unix:///?socket=/run/nbd.sock', undefined],
  ['nbds://host/a,,b,timeout=500ms', 'nbds://host/a,b', 0.5],
])('%s', (text, uri, timeout) => {
  expect(parseBackend(text).backend).toMatchObject({ kind: 'nbd', address: { uri }, timeout });
});

test('keys of the caller are left to it, and what is given beside the text counts', () => {
  const parsed = parseBackend('memory,bs=4096,nsid=2,size=4k', { foreign: ['bs', 'nsid'], size: 8192 });
  expect(parsed.backend).toEqual({ kind: 'memory', size: 4096 });
  expect([...parsed.foreign]).toEqual([
    ['bs', '4096'],
    ['nsid', '2'],
  ]);
  expect(parseBackend('file', { file: 'x', size: 512 }).backend).toMatchObject({
    path: resolve('x'),
    size: 512,
  });
});

test.each<[string, RegExp, { size?: number }?]>([
  ['tape', /^A backend is null, memory, file=PATH, .*; got tape$/],
  ['', /^A backend is null, .*; got $/],
  ['memory=1', /^A backend is null/],
  ['memory,bs=4096', /^bs is no key of a memory backend: memory,bs=4096$/],
  ['memory,size=1,size=2', /^size comes twice in/],
  ['memory,size=1', /^size of memory,size=1 does not accept '1'; it takes a size .*at least 512 bytes$/],
  ['memory,direct', /^direct is no key of a memory backend/],
  ['file', /^The file backend needs a path: file=PATH, or --file PATH$/],
  ['file=/no/such/file', /^There is no file \/no\/such\/file; give its size to create it$/],
  ['file=x,size=1m,direct=yes', /^direct of .* takes no value, or 0 or 1/],
  ['module=', /^Write module=PATH; got module=$/],
  ['nbd', /^Write nbd=URI; got nbd$/],
  ['nbd=host', /^The NBD URI host makes no sense/],
  ['nbd://host:x', /^The NBD URI nbd:\/\/host:x makes no sense: host:x is no HOST/],
  ['nbd://host,timeout=0', /^timeout of .* does not accept '0'/],
  ['nbd://host,size=1g', /^The size of an nbd backend is that of its export/],
  ['nbd://host', /^The size of an nbd backend is that of its export/, { size: 512 }],
  ['a.mjs', /^The size of a module is its own/, { size: 512 }],
])('%s is refused in one line', (text, message, context = {}) => {
  expect(() => parseBackend(text, context)).toThrow(message);
  expect(() => parseBackend(text, context)).toThrow(expect.objectContaining({ exitCode: 2 }));
});
