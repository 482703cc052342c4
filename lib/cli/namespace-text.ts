// SPDX-License-Identifier: MIT
import { type BackendText, parseBackend } from './backend-text';
import { UsageError, type OptionTable, type TableValues } from './option-spec';
import { readTable } from './options';

/** Keys of a namespace, beside those of its backend. */
const KEYS = {
  bs: { type: 'choice', choices: ['512', '4096'], default: '512', help: 'Bytes of a logical block.' },
  nsid: { type: 'integer', min: 1, max: 1024, help: 'Namespace id.' },
  uuid: identifier('a UUID', 32),
  nguid: identifier('an NGUID', 32),
  eui64: identifier('an EUI-64', 16),
} as const satisfies OptionTable;

/** How a namespace is written, for help. */
export const NAMESPACE_FORM =
  'a backend as for --backend, with ,bs=512 or 4096, ,nsid=, ,uuid=, ,nguid= and ,eui64= behind';

/** A namespace as the command line tells of it. */
export interface NamespaceText extends Partial<Omit<TableValues<typeof KEYS>, 'bs'>> {
  readonly backend: BackendText;
  /** Bytes of a logical block. */
  readonly blockSize: 512 | 4096;
}

/**
 * Reads the text of a namespace: `file=disk.img,bs=4096,nsid=2`.
 *
 * @throws UsageError for what is wrong in it
 */
export function parseNamespace(text: string): NamespaceText {
  const { backend, foreign } = parseBackend(text, { foreign: Object.keys(KEYS) });
  const { bs, ...ids } = readTable(KEYS, (key) => [`${key} of ${text}`, foreign.get(key)]) as TableValues<
    typeof KEYS
  >;
  const blockSize = bs === '512' ? 512 : 4096;
  checkSize('size', backend, blockSize);
  return { backend, blockSize, ...ids };
}

/**
 * Checks that a size that was given is made of blocks.
 *
 * @param name of the option or key
 * @throws UsageError
 */
export function checkSize(name: string, backend: BackendText, blockSize: number): void {
  const size = 'size' in backend ? backend.size : undefined;
  if (size === undefined || size % blockSize === 0) return;
  throw new UsageError(`A ${name} of ${size} bytes is no multiple of the block size, ${blockSize}`);
}

/** An identifier of hexadecimal digits, with dashes or without. */
function identifier(what: string, count: number) {
  const digits = new RegExp(`^[0-9a-f]{${count}}$`, 'i');
  return {
    type: 'form',
    placeholder: 'digits',
    expected: `${what}, ${count} hexadecimal digits, with or without dashes`,
    help: `Make it ${what}.`,
    parse: (text: string): string | undefined => (digits.test(text.replaceAll('-', '')) ? text : undefined),
  } as const;
}
