// SPDX-License-Identifier: MIT
/** What the fuzzers are made of: that a failure is seen, that a case can be kept, that wrong usage is refused. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Mapping, closeFd, createSharedMemory } from '../../lib/native';
import { formatCase, parseCase, readCase, saveCase } from './cases';
import { readOptions } from './options';
import { Random } from './random';
import { ROLE_NAMES, Tally, type Role } from './role';
import { ROLES } from './roles';
import { runSessions } from './run-sessions';
import { MessageCutter, type Cut } from './stream';

/** A role whose sessions do what they are told to. */
function roleOf(run: () => void): Role {
  const fixture = {
    run: (): Promise<void> => {
      run();
      return Promise.resolve();
    },
    rest: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
  return { name: 'server', wanted: [], generate: () => [], open: () => Promise.resolve(fixture) };
}

/** Runs a thousand sessions. */
async function runThousand(each: () => void): Promise<number> {
  const tally = new Tally();
  const role = roleOf(() => {
    tally.messages++;
    each();
  });
  return (await runSessions(role, tally, 1, { seconds: Infinity, messages: 1000 })).sessions;
}

describe('a run', () => {
  test('that leaks nothing', async () => {
    expect(await runThousand(() => undefined)).toBe(1000);
  });

  test('sees descriptors that leak', async () => {
    const leaked: number[] = [];
    await expect(runThousand(() => void leaked.push(createSharedMemory(4096)))).rejects.toThrow(
      /leaks.*"fds"/,
    );
    leaked.forEach(closeFd);
  });

  test('sees mappings that leak', async () => {
    const fd = createSharedMemory(4096);
    const leaked: Mapping[] = [];
    await expect(runThousand(() => void leaked.push(Mapping.map(fd, 0, 4096)))).rejects.toThrow(
      /leaks.*"mappings"/,
    );
    for (const mapping of leaked) mapping.close();
    closeFd(fd);
  });

  test('ends with what a session throws', async () => {
    const fail = (): void => {
      throw new Error('defect');
    };
    await expect(runThousand(fail)).rejects.toThrow('defect');
  });
});

describe('random numbers', () => {
  test('follow from seed and stream alone', () => {
    const first = (seed: number, stream: number): number[] => {
      const random = new Random(seed, stream);
      return Array.from({ length: 4 }, () => random.u32());
    };
    expect(first(1, 2)).toEqual(first(1, 2));
    const all = [first(1, 2), first(2, 1), first(1, 3), first(1, 2 + 2 ** 32)].map(String);
    expect(new Set(all).size).toBe(4);
  });

  test.each(ROLE_NAMES)('make the same session twice: %s', (name) => {
    const text = (): string =>
      formatCase({ role: name, note: '', steps: ROLES[name].generate(new Random(7, 8)) });
    expect(text()).toBe(text());
    expect(text().length).toBeGreaterThan(100);
  });
});

describe('a case', () => {
  const one = {
    role: 'server',
    note: 'a "note"',
    steps: [{ do: 'send', bytes: Uint8Array.of(1, 255) }, { do: 'wait' }],
  } as const;

  test('is kept in a file that a person can read', () => {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-user-fuzz-'));
    expect(readCase(saveCase(join(directory, 'new'), 'name', one))).toEqual(one);
    rmSync(directory, { recursive: true });
    expect(formatCase(one)).toContain('    {"do":"send","bytes":"hex:01ff"},\n    {"do":"wait"}\n');
  });

  test('that is none is refused', () => {
    for (const text of ['null', '{}', '{"role":"x","note":"","steps":[]}', '{"role":"server","note":""}'])
      expect(() => parseCase(text)).toThrow('a case has a role');
    expect(() => readCase('/no/such/case.json')).toThrow('/no/such/case.json');
  });
});

describe('options', () => {
  test('have defaults', () => {
    expect(readOptions(['--role', 'client', '--seed', '7'])).toMatchObject({
      role: 'client',
      seconds: 60,
      messages: Infinity,
      seed: 7,
    });
    expect(readOptions(['--role', 'nvme-host', '--messages', '5'])).toMatchObject({
      seconds: Infinity,
      messages: 5,
    });
    expect(readOptions(['--help'])).toBeNull();
  });

  test.each([
    [[], '--role is one of server, client, nvme-host, nvme-controller'],
    [['--role', 'x'], 'not x'],
    [['--role', 'server', '--seconds', '0'], '--seconds is an integer from 1'],
    [['--role', 'server', '--messages', '1e3'], 'not 1e3'],
    [['--role', 'server', '--seed', '4294967296'], '--seed is an integer from 0 to 4294967295'],
    [['--role', 'server', '--speed', '1'], '--speed'],
    [['--role', 'server', '--replay', 'x'], 'leave out --role'],
    [['server'], 'server'],
  ])('%p are refused', (args, text) => {
    expect(() => readOptions(args)).toThrow(text);
  });
});

test('a stream is cut into messages wherever it was cut', () => {
  const bytes = Uint8Array.from([
    1, 0, 4, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 8, 2, 0, 5, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0,
  ]);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const cutter = new MessageCutter();
    const messages: Cut[] = [];
    expect(cutter.push(bytes.subarray(0, cut), 100, messages)).toBe(true);
    expect(cutter.push(bytes.subarray(cut), 100, messages)).toBe(true);
    expect(messages.map(({ header, payload }) => [header.id, header.error, ...payload])).toEqual([
      [1, 0, 7, 8],
      [2, 9],
    ]);
    expect(cutter.partial).toBe(0);
  }
  expect(new MessageCutter().push(bytes, 17, [])).toBe(false);
});
