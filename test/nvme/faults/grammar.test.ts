// SPDX-License-Identifier: MIT
import type { FaultSpec } from '../../../lib/nvme/faults';
import { ADMIN_COMMANDS, EVENTS, IO_COMMANDS, STATUSES } from '../../../lib/nvme/faults/names';
import { parseControllerAction, parseFault } from '../../../lib/nvme/faults/parse';

/** Opcodes that a fault chooses; those of admin commands are 256 more. */
function opcodes(spec: string): number[] {
  const { target } = parseFault(spec);
  if (target.kind !== 'command') throw new Error('not for commands');
  return [...target.opcodes.keys()].filter((code) => target.opcodes[code] !== 0);
}

describe('a text and an object mean the same', () => {
  // The numbers are those of NVMe base 2.0 and the NVM command set 1.0.
  test.each<[text: string, object: FaultSpec, meaning: object]>([
    [
      'on=write,nth=10,status=write-fault',
      { on: 'write', nth: 10, status: 'write-fault' },
      { occasion: { nth: 10, count: 1 }, action: { kind: 'status', status: 0x280 } },
    ],
    [
      'on=read,lba=0-7,delay=2s',
      { on: 'read', lba: '0-7', delay: '2s' },
      { target: { lba: [0, 7] }, delay: { kind: 'fixed', duration: 2000 }, action: undefined },
    ],
    [
      'probability=1%,seed=7,silent',
      { probability: '1%', seed: 7, silent: true },
      { occasion: { probability: 0.01, seed: 7 }, silent: true },
    ],
    ['status=0x2/129,dnr', { status: '0x2/129', dnr: true }, { action: { kind: 'status', status: 0x4281 } }],
    ['lba=0x10,hang', { lba: '0x10', hang: true }, { target: { lba: [16, 16] }, action: { kind: 'hang' } }],
    [
      'queue=2,every=3,count=4,twice',
      { queue: 2, every: 3, count: 4, twice: true },
      { target: { queue: 2 }, occasion: { every: 3, count: 4 }, action: { kind: 'twice' } },
    ],
    [
      'namespace=1,cid',
      { namespace: 1, cid: true },
      { target: { namespace: 1 }, action: { kind: 'cid', cid: undefined } },
    ],
    ['cid=0xffff', { cid: 0xffff }, { action: { kind: 'cid', cid: 65535 } }],
    ['flip', { flip: true }, { action: { kind: 'flip', bits: 1 } }],
    ['flip=3,seed=9', { flip: 3, seed: 9 }, { action: { kind: 'flip', bits: 3 } }],
    ['torn=2', { torn: 2 }, { action: { kind: 'torn', blocks: 2 } }],
    ['lost', { lost: true, hang: false }, { action: { kind: 'lost' } }],
    ['fatal', { fatal: true }, { action: { kind: 'fatal' } }],
    [
      'event=temperature',
      { event: 'temperature' },
      { action: { kind: 'event', event: { type: 1, info: 1, logPage: 2 } } },
    ],
    [
      'event=0/0x3/1',
      { event: '0/0x3/1' },
      { action: { kind: 'event', event: { type: 0, info: 3, logPage: 1 } } },
    ],
    [
      'event=namespace-attribute-changed',
      { event: 'namespace-attribute-changed' },
      { action: { kind: 'event', event: { type: 2, info: 0, logPage: 4 } } },
    ],
    [
      'register=csts,delay=5ms',
      { register: 'csts', delay: 5 },
      { target: { kind: 'register', range: [0x1c, 0x1f] }, delay: { kind: 'fixed', duration: 5 } },
    ],
    [
      'register=cap,access=read,disconnect',
      { register: 'cap', access: 'read', disconnect: true },
      { target: { range: [0, 7], access: 'read' }, action: { kind: 'disconnect' } },
    ],
    [
      'register=0x24,remove',
      { register: 0x24, remove: true },
      { target: { range: [0x24, 0x27] }, action: { kind: 'remove' } },
    ],
    [
      'delay=uniform:500us:1ms',
      { delay: 'uniform:500us:1ms' },
      { delay: { kind: 'uniform', least: 0.5, most: 1 } },
    ],
    [
      'delay=normal:5ms:1ms',
      { delay: 'normal:5ms:1ms' },
      { delay: { kind: 'normal', mean: 5, deviation: 1 } },
    ],
    ['delay=exponential:1m', { delay: 'exponential:1m' }, { delay: { kind: 'exponential', mean: 60_000 } }],
  ])('%s', (text, object, meaning) => {
    const fault = parseFault(text);
    expect(fault).toMatchObject(meaning);
    expect({ ...parseFault(object), text }).toEqual({ ...fault, text });
  });
});

test('spaces around parts and values do not count, and the text is told without them', () => {
  expect(parseFault(' on = read , delay=2s').text).toBe('on=read,delay=2s');
});

describe('what is struck when it is not said', () => {
  test.each([
    ['on=read,hang', [2]],
    ['on=write+compare+identify,hang', [1, 5, 256 + 6]],
    ['on=io:0x7f+admin:0xc0,hang', [0x7f, 256 + 0xc0]],
    ['flip', [1, 2]],
    ['torn=1', [1]],
    ['on=write-zeroes,torn=1', [8]],
    ['lost', [1]],
    ['on=flush,lost', [0]],
    ['lba=1,hang', [1, 2, 4, 5, 8, 0x0c]],
    ['lba=1,flip', [1, 2]],
  ])('%s', (text, codes) => {
    expect(opcodes(text)).toEqual(codes);
  });

  test('all commands of a kind', () => {
    expect(opcodes('hang')).toHaveLength(512);
    expect(opcodes('on=io,hang')).toEqual([...Array(256).keys()]);
    expect(opcodes('queue=3,hang')).toEqual([...Array(256).keys()]);
    expect(opcodes('queue=0,hang')).toEqual([...Array(256).keys()].map((code) => code + 256));
  });
});

describe('an error names the part that is wrong, and what may stand there', () => {
  test.each([
    ['', "fault '': an empty part; a part is one of on, queue,"],
    ['hang,', "fault 'hang,': an empty part"],
    ['hagn', "fault 'hagn': 'hagn' is no part of a fault; did you mean hang?"],
    [
      'zebra=1',
      "'zebra' is no part of a fault; it is one of on, queue, namespace, lba, register, access, nth,",
    ],
    ['toString', "'toString' is no part of a fault"],
    ['hang,hang', 'hang is given twice'],
    ['hang=1', "hang does not accept '1'; it takes no value"],
    ['on', 'on needs a value; it takes commands by name such as read or identify'],
    [
      'on=raed,hang',
      "on does not accept 'raed'; it takes commands by name such as read or identify, io:OPCODE, admin:OPCODE, io or admin for all; several joined by +; did you mean read?",
    ],
    ['on=2,hang', "on does not accept '2'"],
    ['on=io:256,hang', "on does not accept 'io:256'"],
    ['on=read++write,hang', "on does not accept 'read++write'"],
    [
      'queue=65536,hang',
      "queue does not accept '65536'; it takes the id of a submission queue, from 0 to 65535",
    ],
    ['namespace=0,hang', "namespace does not accept '0'; it takes a namespace id from 1 to 4294967294"],
    ['lba=7-0,hang', "lba does not accept '7-0'; it takes a logical block, or a range such as 0-7"],
    ['lba=-1,hang', "lba does not accept '-1'"],
    ['lba=1-2-3,hang', "lba does not accept '1-2-3'"],
    [
      'register=cstz,delay=1ms',
      "register does not accept 'cstz'; it takes a register such as csts, an offset such as 0x1c, a range such as 0x0-0x3f, doorbells, or any; did you mean csts?",
    ],
    ['register=csts,access=both,fatal', "access does not accept 'both'; it takes read or write"],
    ['nth=0,hang', "nth does not accept '0'; it takes a number from 1 to"],
    ['nth=1.5,hang', "nth does not accept '1.5'"],
    [
      'probability=0,hang',
      "probability does not accept '0'; it takes a probability above 0 and up to 1, or a percentage such as 1%",
    ],
    ['probability=101%,hang', "probability does not accept '101%'"],
    ['probability=often,hang', "probability does not accept 'often'"],
    ['seed=-1,flip', "seed does not accept '-1'"],
    [
      'delay=2',
      "delay does not accept '2'; it takes a duration with its unit, such as 500us, 20ms or 2s, at most a day, or uniform:LEAST:MOST, normal:MEAN:DEVIATION or exponential:MEAN of durations",
    ],
    ['delay=25h', "delay does not accept '25h'"],
    ['delay=uniform:5ms:1ms', "delay does not accept 'uniform:5ms:1ms'"],
    ['delay=uniform:5ms', "delay does not accept 'uniform:5ms'"],
    ['delay=normal:5ms:1ms:1ms', "delay does not accept 'normal:5ms:1ms:1ms'"],
    ['delay=poisson:5ms', "delay does not accept 'poisson:5ms'"],
    ['delay=exponential:5ms:1ms', "delay does not accept 'exponential:5ms:1ms'"],
    ['delay=', "delay does not accept ''"],
    [
      'status=write-fualt',
      "status does not accept 'write-fualt'; it takes a status other than success, by name such as write-fault, or as type and code such as 2/0x80; did you mean write-fault?",
    ],
    ['status=success', "status does not accept 'success'"],
    ['status=0/0', "status does not accept '0/0'"],
    ['status=8/1', "status does not accept '8/1'"],
    ['status=2/0x80/1', "status does not accept '2/0x80/1'"],
    ['cid=65536', "cid does not accept '65536'; it takes nothing, or a command id from 0 to 65535"],
    ['flip=0', "flip does not accept '0'; it takes nothing, or a number of bits from 1 to 4096"],
    ['torn', 'torn needs a value; it takes a number of logical blocks from 0 to 65535'],
    [
      'event=temprature',
      "event does not accept 'temprature'; it takes an event by name (invalid-doorbell-register,",
    ],
    ['event=temprature', 'did you mean temperature?'],
    ['event=1/1', "event does not accept '1/1'"],
    [
      'on=read',
      'it does nothing; give one of status, hang, twice, cid, flip, torn, lost, fatal, event, disconnect, remove, delay, silent',
    ],
    ['hang,lost', 'hang and lost are two actions; a fault has one'],
    ['nth=1,every=2,hang', 'nth and every do not go together: nth strikes once'],
    ['nth=1,count=2,hang', 'nth and count do not go together'],
    ['nth=1,probability=1,hang', 'nth and probability do not go together'],
    ['hang,delay=1s', 'hang and delay do not go together: a command that never completes is not late'],
    ['hang,silent', 'silent and hang do not go together'],
    ['remove,silent', 'silent and remove do not go together'],
    ['hang,dnr', 'dnr goes with status'],
    ['access=read,hang', 'access goes with register'],
    ['hang,seed=1', 'nothing is left to chance; seed goes with probability, flip, or a delay that is drawn'],
    ['delay=1s,seed=1', 'nothing is left to chance'],
    [
      'register=csts,status=write-fault',
      'status is for commands, and register chooses accesses of registers; these go with delay, fatal, event, disconnect, remove',
    ],
    ['register=csts,on=read,delay=1s', 'on is for commands'],
    ['register=csts,silent', 'silent is for commands'],
    ['on=read,torn=1', 'torn goes with write and write-zeroes only, and on names others'],
    ['on=read+write,torn=1', 'torn goes with write and write-zeroes only, and on names others'],
    ['on=identify,lost', 'lost goes with I/O commands only, and on names others'],
    [
      'on=flush,lba=3,hang',
      'lba goes with read, write, compare, write-zeroes, write-uncorrectable and verify only',
    ],
    ['on=read,queue=0,hang', 'queue 0 has admin commands only, and none of them is chosen'],
    ['on=identify,queue=1,hang', 'queue 1 has I/O commands only, and none of them is chosen'],
    ['queue=0,flip', 'queue 0 has admin commands only'],
  ])('%s', (text, message) => {
    expect(() => parseFault(text)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE', message: expect.stringContaining(message) }),
    );
    expect(() => parseFault(text)).toThrow(/^[^\n]*$/);
  });

  test('values of an object are held to the same grammar', () => {
    expect(() => parseFault({ on: 'read', lba: '1,hang', delay: 1 })).toThrow("lba does not accept '1,hang'");
    expect(() => parseFault({ delay: -1 })).toThrow("delay does not accept '-1ms'");
    expect(() => parseFault({ delay: NaN })).toThrow("delay does not accept 'NaNms'");
    expect(() => parseFault({ nope: 1 } as FaultSpec)).toThrow("'nope' is no part of a fault");
  });
});

test('at once can be done what is done to the controller, and nothing else', () => {
  expect(parseControllerAction('fatal')).toEqual({ kind: 'fatal' });
  expect(parseControllerAction({ event: 'spare' })).toEqual({
    kind: 'event',
    event: { type: 1, info: 2, logPage: 2 },
  });
  for (const wrong of ['hang', 'fatal,remove', 'fatal,delay=1s', 'fatal,nth=2'])
    expect(() => parseControllerAction(wrong)).toThrow(
      `fault '${wrong}': at once can be done one of fatal, event, disconnect, remove, and nothing else with it`,
    );
  expect(() => parseControllerAction('fatl')).toThrow('did you mean fatal?');
});

test('every name of the specification is one name', () => {
  const names = [...ADMIN_COMMANDS.keys(), ...IO_COMMANDS.keys()];
  expect(new Set(names).size).toBe(names.length);
  // A status that had the name of another would have taken its place.
  const codes = [...STATUSES.values()].map(([sct, sc]) => (sct << 8) | sc);
  expect(new Set(codes).size).toBe(codes.length);
  expect(STATUSES.size).toBeGreaterThan(90);
  expect(EVENTS.size).toBe(6 + 3 + 4);
});
