// SPDX-License-Identifier: MIT
import { editDistance } from '../../lib/closest';
import { renderHelp } from '../../lib/cli/help';
import { UsageError, type CommandSpec } from '../../lib/cli/option-spec';
import { parseCommandLine } from '../../lib/cli/options';
import { columnsOf, styleOf } from '../../lib/cli/style';

const bench = {
  name: 'bench',
  summary: 'Measure an NVMe controller.',
  positionals: [
    { name: 'socket', help: 'Path of the socket.' },
    { name: 'nsid', help: 'Namespace.', optional: true },
  ],
  options: {
    rw: {
      type: 'choice',
      choices: ['read', 'randread', 'randwrite'],
      default: 'randread',
      help: 'Workload.',
    },
    bs: { type: 'size', short: 'o', default: '4k', min: 512, max: 1_048_576, help: 'Size of an I/O.' },
    iodepth: { type: 'count', short: 'q', default: '1', min: 1, help: 'Commands in flight.' },
    runtime: { type: 'duration', short: 't', max: 3600, help: 'How long.' },
    opcode: { type: 'integer', help: 'Opcode.', min: 0, max: 255 },
    output: { type: 'string', placeholder: 'path', help: 'Where the report goes.' },
    verify: { type: 'boolean', short: 'v', help: 'Check what was written.' },
    ramp_time: { type: 'duration', unit: 'us', aliases: ['ramp'], max: 60, help: 'How long before.' },
    skew: { type: 'number', max: 1.5, help: 'Skew.' },
    law: {
      type: 'form',
      placeholder: 'law',
      expected: 'even or odd',
      parse: (text) => (text === 'even' ? 0 : text === 'odd' ? 1 : undefined),
      default: 'even',
      help: 'Law.',
    },
    time_based: { type: 'boolean', default: '1', help: 'To the end of its time.' },
  },
  foreign: { w: 'rw' },
  examples: [['bench a.sock -t 60', 'Reads for a minute.']],
} as const satisfies CommandSpec;

function parse(...args: string[]) {
  const line = parseCommandLine(bench, args);
  if (line.help) throw new Error('help was not asked for');
  return line;
}

function failure(...args: string[]): string {
  try {
    parseCommandLine(bench, args);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({ name: 'UsageError', exitCode: 2 });
    const { message } = error as UsageError;
    expect(message).not.toContain('\n');
    return message;
  }
  throw new Error('nothing was thrown');
}

test('defaults are read as if they had been written', () => {
  const { options, positionals } = parse('a.sock');
  expect(options).toEqual({
    rw: 'randread',
    bs: 4096,
    iodepth: 1,
    runtime: undefined,
    opcode: undefined,
    output: undefined,
    verify: false,
    ramp_time: undefined,
    skew: undefined,
    law: 0,
    time_based: true,
  });
  expect(positionals).toEqual(['a.sock']);
});

test('the values have the types of their options', () => {
  const { options } = parse('a.sock');
  const rw: 'read' | 'randread' | 'randwrite' = options.rw;
  const bs: number = options.bs;
  const verify: boolean = options.verify;
  // @ts-expect-error an option without default may be undefined; `npm run typecheck` fails when this is no error
  const runtime: number = options.runtime;
  expect([rw, bs, verify, runtime]).toEqual(['randread', 4096, false, undefined]);
});

test('options may be written with a space, an equals sign or a letter, before and after the arguments', () => {
  const expected = {
    bs: 8192,
    iodepth: 1000,
    runtime: 0.5,
    opcode: 0x1b,
    output: 'x',
    verify: true,
    rw: 'read',
  };
  const spaced = '--bs 8k --iodepth 1k a.sock --runtime 500ms --opcode 0x1b --output x --verify --rw read 2';
  expect(parse(...spaced.split(' '))).toMatchObject({
    help: false,
    options: expected,
    positionals: ['a.sock', '2'],
  });
  const inline = 'a.sock 2 --bs=8k --iodepth=1k --runtime=500ms --opcode=27 --output=x -v --rw=read';
  expect(parse(...inline.split(' ')).options).toMatchObject(expected);
  const letters = '-o 8k -q1k -t 500ms -v a.sock --opcode=27 --output=x --rw=read';
  expect(parse(...letters.split(' ')).options).toMatchObject(expected);
});

test('dashes and underscores are the same in names, and an alias is the same option', () => {
  for (const name of ['--ramp_time', '--ramp-time', '--ramp'])
    expect(parse('s', name, '500').options.ramp_time).toBe(500e-6);
  expect(parse('s', '--time-based=0').options.time_based).toBe(false);
  expect(parse('s', '--ramp-time=2s').given).toEqual(new Map([['ramp_time', '2s']]));
  // What follows two dashes, and values, stay as they are.
  expect(parse('--output=a-b', '--', '--ramp-time').positionals).toEqual(['--ramp-time']);
  expect(parse('s', '--output=--ramp-time').options.output).toBe('--ramp-time');
});

test('a flag may be given as 1 or 0, as in fio', () => {
  expect(parse('s', '--verify=1').options.verify).toBe(true);
  expect(parse('s', '--verify=0').options.verify).toBe(false);
});

test('after two dashes everything is an argument', () => {
  expect(parse('--verify', '--', '--bs', '-q')).toMatchObject({
    positionals: ['--bs', '-q'],
    options: { bs: 4096, verify: true },
  });
});

test('a value may begin with a dash after an equals sign, and may be a single dash', () => {
  expect(parse('s', '--output=-x').options.output).toBe('-x');
  expect(parse('s', '--output', '-').options.output).toBe('-');
  expect(parse('s', '--output=').options.output).toBe('');
});

test.each([
  [['s', '--iodpeth', '4'], 'Unknown option --iodpeth; did you mean --iodepth?'],
  [['s', '--io-depth=4'], 'Unknown option --io-depth; did you mean --iodepth?'],
  [['s', '--frobnicate'], 'Unknown option --frobnicate; --help lists the options'],
  [['s', '-z'], 'Unknown option -z; --help lists the options'],
  [['s', '--__proto__=1'], 'Unknown option --__proto__; --help lists the options'],
  [['s', '--toString'], 'Unknown option --toString; --help lists the options'],
  [['s', '--bs'], 'Option --bs needs a value: a size such as 512, 4k or 1m, from 512 to 1048576 bytes'],
  [
    ['s', '-q', '--verify'],
    'Option -q needs a value: a whole number such as 32 or 10k, at least 1 (write --iodepth=--verify if that is the value)',
  ],
  [['s', '--output'], 'Option --output needs a value: <path>'],
  [['s', '--verify=yes'], "Option --verify takes no value, or 0 or 1, but was given 'yes'"],
  [['s', '-w', 'read'], 'Unknown option -w; what other tools call so is --rw here'],
  [['s', '--bs=4k', '-o', '8k'], "Option -o is given twice, as '4k' and as '8k'; give it once"],
  [['s', '--ramp-time=1', '--ramp=1'], "Option --ramp is given twice, as '1' and as '1'; give it once"],
  [['s', '--verify', '--verify'], 'Option --verify is given twice; give it once'],
  [['s', '--law=1'], "Option --law does not accept '1'; it takes even or odd"],
  [['s', '--skew=2'], "Option --skew does not accept '2'; it takes a number such as 99.9, at most 1.5"],
  [['s', '--ramp-tiem=1'], 'Unknown option --ramp-tiem; did you mean --ramp_time?'],
  [
    ['s', '--ramp_time=2m'],
    "Option --ramp_time does not accept '2m'; it takes a duration such as 500 (microseconds), 5ms or 1s, at most 60 s",
  ],
  [
    ['s', '--bs', '4x'],
    "Option --bs does not accept '4x'; it takes a size such as 512, 4k or 1m, from 512 to 1048576 bytes",
  ],
  [
    ['s', '--bs=511'],
    "Option --bs does not accept '511'; it takes a size such as 512, 4k or 1m, from 512 to 1048576 bytes",
  ],
  [
    ['s', '--iodepth=0'],
    "Option --iodepth does not accept '0'; it takes a whole number such as 32 or 10k, at least 1",
  ],
  [
    ['s', '--runtime=2h'],
    "Option --runtime does not accept '2h'; it takes a duration such as 5, 500ms or 2m, at most 3600 s",
  ],
  [['s', '--opcode=256'], "Option --opcode does not accept '256'; it takes a whole number, from 0 to 255"],
  [['s', '--opcode=-1'], "Option --opcode does not accept '-1'; it takes a whole number, from 0 to 255"],
  [['s', '--opcode=1.5'], "Option --opcode does not accept '1.5'; it takes a whole number, from 0 to 255"],
  [['s', '--opcode='], "Option --opcode does not accept ''; it takes a whole number, from 0 to 255"],
  [
    ['s', '--rw=radnread'],
    "Option --rw does not accept 'radnread'; it takes one of read, randread, randwrite; did you mean randread?",
  ],
  [['s', '--rw=trim'], "Option --rw does not accept 'trim'; it takes one of read, randread, randwrite"],
  [[], 'Missing <socket>: Path of the socket. Usage: vfio-user bench <socket> [nsid] [options]'],
  [['s', '1', 'more'], "Unexpected argument 'more'. Usage: vfio-user bench <socket> [nsid] [options]"],
])('%j is refused', (args, message) => {
  expect(failure(...args)).toBe(message);
});

test('help makes everything else irrelevant', () => {
  expect(parseCommandLine(bench, ['--help'])).toEqual({ help: true });
  expect(parseCommandLine(bench, ['--nonsense', '-h'])).toEqual({ help: true });
  expect(parse('--', '--help').positionals).toEqual(['--help']);
});

test('the help text names arguments, options, choices and defaults', () => {
  expect(renderHelp(bench)).toBe(`Usage: vfio-user bench <socket> [nsid] [options]

Measure an NVMe controller.

Arguments:
  <socket>  Path of the socket.
  <nsid>    Namespace.

Options:
      --rw <word>             Workload. One of read, randread, randwrite. Default: randread.
  -o, --bs <size>             Size of an I/O. Default: 4k.
  -q, --iodepth <count>       Commands in flight. Default: 1.
  -t, --runtime <duration>    How long.
      --opcode <integer>      Opcode.
      --output <path>         Where the report goes.
  -v, --verify                Check what was written.
      --ramp_time <duration>  How long before. Also --ramp.
      --skew <number>         Skew.
      --law <law>             Law. Default: even.
      --time_based            To the end of its time.
  -h, --help                  Show this text.

Underscores in names of options may be written as dashes.

Examples:
  # Reads for a minute.
  vfio-user bench a.sock -t 60
`);
});

test('long help texts wrap at 100 columns, under their column', () => {
  const help = Array.from({ length: 40 }, () => 'words').join(' ');
  const command: CommandSpec = { name: 'x', summary: help, options: { flag: { type: 'boolean', help } } };
  const lines = renderHelp(command).split('\n');
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
  expect(lines.filter((line) => /^ {14}words/.test(line)).length).toBeGreaterThan(1);
  expect(lines).not.toContain('Arguments:');
});

test('options stand under the headings of their groups; a narrow terminal gets narrow lines', () => {
  const help = Array.from({ length: 40 }, () => 'words').join(' ');
  const command: CommandSpec = {
    name: 'x',
    summary: help,
    options: {
      random_distribution: { type: 'string', group: 'Workload', placeholder: 'distribution', help },
      output: { type: 'string', group: 'Report', help },
    },
  };
  for (const columns of [60, 80, 100]) {
    const text = renderHelp(command, columns);
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(columns);
    expect(text.match(/^\w.*:$/gm)).toEqual(['Workload:', 'Report:', 'Options:']);
  }
});

test('headings are bold on a terminal, unless NO_COLOR is set', () => {
  const terminal = { isTTY: true, columns: 80 };
  expect(renderHelp(bench, 80, styleOf(terminal, {}))).toContain('\x1b[1mOptions:\x1b[22m\n');
  for (const style of [
    styleOf(terminal, { NO_COLOR: '1' }),
    styleOf(terminal, { TERM: 'dumb' }),
    styleOf({}, {}),
  ])
    expect(renderHelp(bench, 80, style)).not.toContain('\x1b');
  expect(styleOf(terminal, { NO_COLOR: '' })).toBe('colours');
});

test('how wide an output is', () => {
  expect(columnsOf({ isTTY: true, columns: 132 }, {})).toBe(132);
  expect(columnsOf({ isTTY: true, columns: 0 }, {})).toBe(80);
  expect(columnsOf({}, { COLUMNS: '90' })).toBe(90);
  expect(columnsOf({}, { COLUMNS: 'wide' })).toBeUndefined();
  expect(columnsOf({}, {})).toBeUndefined();
});

test.each([
  ['', '', 0],
  ['abc', '', 3],
  ['kitten', 'sitting', 3],
  ['iodpeth', 'iodepth', 1],
  ['io-depth', 'iodepth', 1],
])('the distance from %j to %j is %d', (from, to, distance) => {
  expect(editDistance(from, to)).toBe(distance);
});
