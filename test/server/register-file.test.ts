// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { RegisterFile } from '../../lib/server';

const calls: unknown[][] = [];
const note =
  (name: string) =>
  (...values: unknown[]): void => {
    calls.push([name, ...values]);
  };
beforeEach(() => {
  calls.length = 0;
});

const file = (accesses?: readonly (1 | 2 | 4 | 8)[]) =>
  new RegisterFile({
    size: 0x40,
    ...(accesses && { accesses }),
    registers: {
      id: { offset: 0x00, width: 32, reset: 0x0100_00ed },
      mode: { offset: 0x04, width: 8, reset: 0x81, writable: 0x0f, write: note('mode') },
      flags: {
        offset: 0x06,
        width: 16,
        reset: 0x0ff0,
        writable: 0x8000,
        clearable: 0x00ff,
        write: note('flags'),
      },
      time: { offset: 0x08, width: 32, read: () => 0x1234_5678 },
      address: { offset: 0x10, width: 64, writable: ~0xfffn, write: note('address') },
      clock: { offset: 0x18, width: 64, read: () => 0x1122_3344_5566_7788n },
    },
  });
const read = ({ region }: ReturnType<typeof file>, offset: number, length: number): string => {
  const data = new Uint8Array(length);
  void region.read(offset, data);
  return Buffer.from(data).toString('hex');
};
const write = ({ region }: ReturnType<typeof file>, offset: number, hex: string): void | Promise<void> =>
  region.write(offset, Uint8Array.from(Buffer.from(hex, 'hex')), false);

test('reads registers, parts of them, several of them, and zeroes between them', () => {
  const registers = file();
  expect(read(registers, 0, 4)).toBe('ed000001');
  expect(read(registers, 3, 1)).toBe('01');
  expect(read(registers, 0, 16)).toBe('ed000001' + '8100f00f' + '78563412' + '00000000');
  expect(read(registers, 9, 2)).toBe('5634');
  expect(read(registers, 0x1c, 4)).toBe('44332211');
  expect(read(registers, 0x3c, 4)).toBe('00000000');
  expect(registers.get('time')).toBe(0);
});

test('a write changes what is writable, and clears what is clearable', () => {
  const registers = file();
  void write(registers, 0, 'ffffffff');
  void write(registers, 4, 'ff');
  void write(registers, 6, '30f0');
  expect(read(registers, 0, 8)).toBe('ed0000018f00c08f');
  expect(calls).toEqual([
    ['mode', 0x8f, 0xff],
    ['flags', 0x8fc0, 0xf030],
  ]);
});

test('a write of a part, and one of several registers', () => {
  const registers = file();
  // The upper half of a register of 64 bits, then all of it: values are bigints.
  void write(registers, 0x14, '78563412');
  expect(registers.get('address')).toBe(0x1234_5678_0000_0000n);
  void write(registers, 0x10, 'ffffffffffffffff');
  void write(registers, 0x02, 'ffff' + '00' + 'ff' + '0180');
  expect(calls).toEqual([
    ['address', 0x1234_5678_0000_0000n, 0x1234_5678_0000_0000n],
    ['address', 0xffff_ffff_ffff_f000n, 0xffff_ffff_ffff_ffffn],
    ['mode', 0x80, 0],
    ['flags', 0x8ff0, 0x8001],
  ]);
});

test('the device stores without a call, and resets all', () => {
  const registers = file();
  registers.set('address', 5n);
  registers.set('id', -1);
  expect([registers.get('address'), registers.get('id')]).toEqual([5n, 0xffff_ffff]);
  registers.reset();
  expect([registers.get('address'), registers.get('id'), registers.get('flags')]).toEqual([
    0n,
    0x0100_00ed,
    0x0ff0,
  ]);
  expect(calls).toEqual([]);
  for (const value of [2 ** 32, 0.5, -(2 ** 31) - 1])
    expect(() => {
      registers.set('id', value);
    }).toThrow(RangeError);
  expect(() => {
    registers.set('address', 1n << 64n);
  }).toThrow(RangeError);
});

test('a register that takes its time holds the answer up, and the next register of the access', async () => {
  let open = (): void => undefined;
  const registers = new RegisterFile({
    size: 8,
    registers: {
      slow: { offset: 0, width: 32, write: () => new Promise<void>((resolve) => (open = resolve)) },
      next: { offset: 4, width: 32, write: note('next') },
    },
  });
  const done = registers.region.write(0, new Uint8Array(8), false);
  await Promise.resolve();
  expect(calls).toEqual([]);
  open();
  await done;
  expect(calls).toEqual([['next', 0, 0]]);
});

test('accesses of other sizes, or that are not aligned, are refused where the device wants that', () => {
  const registers = file([4, 8]);
  expect(read(registers, 0x18, 8)).toBe('8877665544332211');
  for (const [offset, length] of [
    [0, 2],
    [2, 4],
    [4, 8],
    [0, 16],
  ] as const) {
    const refused = expect.objectContaining({ name: 'CommandError', errno: 22 }) as Error;
    expect(() => read(registers, offset, length)).toThrow(refused);
    expect(() => write(registers, offset, '00'.repeat(length))).toThrow(refused);
  }
  expect(calls).toEqual([]);
});

test('any accesses: as bytes with masks', () => {
  const initial = [...Buffer.from(read(file(), 0, 8), 'hex')];
  const writable = [0, 0, 0, 0, 0x0f, 0, 0, 0x80];
  const clearable = [0, 0, 0, 0, 0, 0, 0xff, 0];
  const access = fc
    .record({ offset: fc.nat(7), data: fc.uint8Array({ minLength: 1, maxLength: 8 }) })
    .filter(({ offset, data }) => offset + data.length <= 8);
  fc.assert(
    fc.property(fc.array(access), (accesses) => {
      const registers = file();
      const bytes = [...initial];
      for (const { offset, data } of accesses) {
        void registers.region.write(offset, data, false);
        data.forEach((value, i) => {
          const at = offset + i;
          bytes[at] = ((bytes[at]! & ~writable[at]!) | (value & writable[at]!)) & ~(value & clearable[at]!);
        });
        expect(read(registers, 0, 8)).toBe(Buffer.from(bytes).toString('hex'));
      }
    }),
  );
});

test.each<[string, object, RegExp]>([
  [
    'overlap',
    { a: { offset: 0, width: 32 }, b: { offset: 2, width: 16 } },
    /^register b: its 2 bytes at 0x2 overlap register a, 4 bytes at 0x0$/,
  ],
  [
    'are not aligned',
    { a: { offset: 2, width: 32 } },
    /^register a: offset is 2; .* multiple of its 4 bytes$/,
  ],
  ['have no offset that is a number', { a: { offset: '0', width: 8 } }, /^register a: offset is '0'; /],
  [
    'lie outside',
    { a: { offset: 16, width: 8 } },
    /^register a: its 1 bytes at 0x10 are not within the 16 bytes/,
  ],
  [
    'have a width of their own',
    { a: { offset: 0, width: 24 } },
    /^register a: width is 24; .* 8, 16, 32, 64 bits$/,
  ],
  [
    'have values beyond their width',
    { a: { offset: 0, width: 8, reset: 256 } },
    /^register a: reset is 256; .* 8 bits$/,
  ],
  [
    'have values that are none',
    { a: { offset: 0, width: 8, writable: 0.5 } },
    /^register a: writable is 0.5; .* integer/,
  ],
  ['have keys that are not known', { a: { offset: 0, width: 8, wirte: 1 } }, /unknown key "wirte"/],
])('registers that %s are refused', (_, registers, message) => {
  expect(() => new RegisterFile({ size: 16, registers: registers as never })).toThrow(message);
});

test('a register far behind is refused, and the region may be larger', () => {
  const at = (offset: number) => new RegisterFile({ size: 2 ** 40, registers: { a: { offset, width: 32 } } });
  expect(at(2 ** 24 - 4).region.size).toBe(2 ** 40);
  expect(() => at(2 ** 24)).toThrow('register a: its 4 bytes at 0x1000000 are not within the first 16 MiB');
  expect(() => at(2 ** 33)).toThrow(RangeError);
});

test.each([0, 1.5, '16', 2 ** 53])('a size of %p is refused', (size) => {
  expect(() => new RegisterFile({ size: size as number, registers: {} })).toThrow(
    /size is .* from 1 to 2\^53 - 1/,
  );
});

test.each([[[]], [[3]], [4]])('accesses of %j are refused', (accesses) => {
  expect(() => new RegisterFile({ size: 16, accesses: accesses as never, registers: {} })).toThrow(
    /accesses is .* some of 1, 2, 4 and 8/,
  );
});

test('what a device gives for a register that is no value of it is told by name', () => {
  const registers = new RegisterFile({
    size: 8,
    registers: { id: { offset: 0, width: 16, read: () => undefined as unknown as number } },
  });
  expect(() => registers.region.read(0, new Uint8Array(2))).toThrow(
    'register id: what read returned is undefined; it is an integer of 16 bits',
  );
  expect(() => registers.get('ids' as 'id')).toThrow('there is no register ids; there are id');
});
