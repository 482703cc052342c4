// SPDX-License-Identifier: MIT
import { relative, resolve, dirname } from 'node:path';
import tseslint from 'typescript-eslint';
import ts from 'typescript';

/** Files that every room may import. */
const SHARED = ['errors', 'async', 'closest', 'random', 'latency-histogram', 'power-of-two', 'report-limit'];

/** Which room may import which: downward only (docs/architecture.md). */
const ARROWS = {
  protocol: [],
  native: [],
  pci: [],
  'nvme/spec': [],
  transport: ['protocol', 'native'],
  dma: ['native', 'pci', 'protocol'],
  irq: ['native', 'pci', 'protocol'],
  device: ['protocol', 'native', 'dma', 'irq', 'pci'],
  client: ['protocol', 'native', 'transport', 'dma', 'irq', 'pci', 'device'],
  kernel: ['protocol', 'native', 'dma', 'irq', 'pci', 'device'],
  server: ['protocol', 'native', 'transport', 'dma', 'pci'],
  proxy: ['protocol', 'native', 'dma', 'pci', 'server'],
  'nvme/host': ['native', 'pci', 'nvme/spec'],
  'nvme/backends': ['native'],
  'nvme/faults': ['nvme/spec'],
  'nvme/controller': ['native', 'pci', 'nvme/spec', 'nvme/backends', 'nvme/faults', 'server', 'transport'],
  nvme: ['nvme/host', 'nvme/controller', 'nvme/backends', 'nvme/faults', 'nvme/spec'],
  bench: ['native', 'pci', 'nvme/spec', 'nvme/host'],
  cli: [
    'native',
    'pci',
    'nvme/spec',
    'nvme/host',
    'nvme/controller',
    'nvme/backends',
    'nvme/faults',
    'client',
    'kernel',
    'server',
    'proxy',
    'bench',
    'protocol',
  ],
};
const LIB = resolve(import.meta.dirname, 'lib');

function roomOf(file) {
  const [first, second] = relative(LIB, file).split('/');
  if (first === 'nvme' && second !== undefined && `nvme/${second}` in ARROWS) return `nvme/${second}`;
  return first;
}

const arrows = {
  rules: {
    arrows: {
      meta: { type: 'problem', schema: [] },
      create: (context) => {
        const from = roomOf(context.filename);
        const check = (node) => {
          const source = node.source?.value;
          if (typeof source !== 'string' || !source.startsWith('.')) return;
          const to = roomOf(resolve(dirname(context.filename), source));
          if (to === from || SHARED.includes(to) || ARROWS[from]?.includes(to)) return;
          context.report({
            node,
            message: `lib/${from} must not import lib/${to}; see docs/architecture.md`,
          });
        };
        return { ImportDeclaration: check, ExportNamedDeclaration: check, ExportAllDeclaration: check };
      },
    },
  },
};

const TAKEN_BY_TEMPLATES = ts.TypeFlags.StringLike | ts.TypeFlags.NumberLike | ts.TypeFlags.BigIntLike;

const templates = {
  rules: {
    'no-string-call': {
      meta: { type: 'suggestion', fixable: 'code', schema: [] },
      create: ({ sourceCode, report }) => ({
        'TemplateLiteral > CallExpression[callee.name="String"][arguments.length=1]': (node) => {
          const type = sourceCode.parserServices.getTypeAtLocation(node.arguments[0]);
          const parts = type.isUnion() ? type.types : [type];
          if (parts.some((part) => (part.flags & TAKEN_BY_TEMPLATES) === 0)) return;
          report({
            node,
            message: 'A template takes this value as it is, without String()',
            fix: (fixer) => fixer.replaceText(node, sourceCode.getText(node.arguments[0])),
          });
        },
      }),
    },
  },
};

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'prebuilds/', 'coverage/', '**/jest.config.js'] },
  {
    files: ['**/*.ts', 'examples/*.mjs'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    plugins: { templates },
    rules: {
      'templates/no-string-call': 'error',
      '@typescript-eslint/no-unnecessary-type-conversion': 'error',
      // A value read from a typed array is a number unless the index is wrong, which hot loops and codecs have checked.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      // An interface gives the type that it extends a name for messages and the API reference.
      '@typescript-eslint/no-empty-object-type': ['error', { allowInterfaces: 'with-single-extends' }],
      eqeqeq: 'error',
    },
  },
  {
    files: ['lib/**/*.ts'],
    ignores: ['lib/*.ts'],
    plugins: { rooms: arrows },
    rules: { 'rooms/arrows': 'error' },
  },
  { files: ['lib/**/*.ts'], ignores: ['lib/cli/**'], rules: { 'no-console': 'error' } },
  {
    files: ['examples/*.mjs'],
    rules: {
      // An example shows what matters in few lines.
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      // Jest types its asymmetric matchers (expect.objectContaining) as any.
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-empty-function': 'off',
    },
  },
);
