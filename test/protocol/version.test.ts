// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  defaultCapabilities,
  decodeVersion,
  encodeVersion,
  MAX_VERSION_JSON,
  negotiateCapabilities,
} from '../../lib/protocol';
import { expectProtocolError, expectRobust, hex, toHex } from './support';

/** major 0, minor 1, then the text as it is. */
function version(text: string): Uint8Array {
  return new Uint8Array([0, 0, 1, 0, ...new TextEncoder().encode(text)]);
}
const withCapabilities = (text: string): Uint8Array => version(`{"capabilities":${text}}\0`);

// vfio-user, VFIO_USER_VERSION: major 2, minor 2, JSON with its NUL.
test('encodes the version without JSON', () => {
  expect(toHex(encodeVersion(0, 1, null))).toBe('00000100');
  expect(toHex(encodeVersion(0x102, 0x304, null))).toBe('02010403');
});

test('encodes capabilities under the names of the specification', () => {
  const payload = encodeVersion(0, 1, {
    maxMsgFds: 8,
    maxDataXferSize: 1048576,
    maxDmaMaps: 64,
    pageSizes: 4096,
    twinSocket: { supported: true, fdIndex: 0 },
    writeMultiple: true,
  });
  expect(payload.at(-1)).toBe(0);
  expect(new TextDecoder().decode(payload.subarray(4, -1))).toBe(
    '{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"max_dma_maps":64,"pgsizes":4096,' +
      '"twin_socket":{"supported":true,"fd_index":0},"write_multiple":true}}',
  );
});

test('leaves out what is not given', () => {
  expect(encodeVersion(0, 1, {})).toEqual(version('{"capabilities":{}}\0'));
  expect(encodeVersion(0, 1, { twinSocket: { supported: false } })).toEqual(
    withCapabilities('{"twin_socket":{"supported":false}}'),
  );
});

// libvfio-user's server reply, from format_server_capabilities() in lib/tran.c as json-c prints it.
test('decodes a reply of libvfio-user with migration and twin socket', () => {
  const decoded = decodeVersion(
    version(
      '{ "capabilities": { "max_msg_fds": 8, "max_data_xfer_size": 1048576, "migration": { "pgsize": 4096 }, ' +
        '"twin_socket": { "supported": true, "fd_index": 0 } } }\0',
    ),
  );
  expect(decoded.major).toBe(0);
  expect(decoded.minor).toBe(1);
  expect(decoded.capabilities).toEqual({
    ...defaultCapabilities(),
    maxMsgFds: 8,
    twinSocket: { supported: true, fdIndex: 0 },
  });
  expect(decoded.raw).toMatchObject({ capabilities: { migration: { pgsize: 4096 } } });
});

test.each([
  ['only the version', hex('00000100')],
  ['an empty string', hex('0000010000')],
  ['blanks', version(' \n\0')],
])('%s means the defaults', (_name, payload) => {
  expect(decodeVersion(payload)).toEqual({
    major: 0,
    minor: 1,
    capabilities: defaultCapabilities(),
    raw: null,
  });
});

// vfio-user, VFIO_USER_VERSION, Capabilities.
test('the defaults are those of the specification', () => {
  expect(defaultCapabilities()).toEqual({
    maxMsgFds: 1,
    maxDataXferSize: 1048576,
    maxDmaMaps: 65535,
    pageSizes: 4096,
    twinSocket: { supported: false },
    writeMultiple: false,
  });
});

test('the terminating NUL and the key capabilities may be missing', () => {
  expect(decodeVersion(version('{}')).capabilities).toEqual(defaultCapabilities());
  expect(decodeVersion(version('{"capabilities":{"max_msg_fds":3}}')).capabilities.maxMsgFds).toBe(3);
  expect(decodeVersion(version('{"capabilities":{"max_msg_fds":3}}\0junk')).capabilities.maxMsgFds).toBe(3);
  expect(decodeVersion(version('{"other":[1]}\0')).raw).toEqual({ other: [1] });
});

test('the old name max_fds counts when the new one is missing', () => {
  expect(decodeVersion(withCapabilities('{"max_fds":5}')).capabilities.maxMsgFds).toBe(5);
  expect(decodeVersion(withCapabilities('{"max_fds":5,"max_msg_fds":6}')).capabilities.maxMsgFds).toBe(6);
});

test('twin_socket without supported is not supported', () => {
  expect(decodeVersion(withCapabilities('{"twin_socket":{"fd_index":1}}')).capabilities.twinSocket).toEqual({
    supported: false,
    fdIndex: 1,
  });
});

test.each([
  ['{', /not valid JSON/],
  ['"', /not valid JSON/],
  ['[1]', /version data is an array/],
  ['null', /version data is null/],
  ['"text"', /version data is "text"/],
  ['{"capabilities":"23"}', /capabilities is "23", an object/],
  ['{"capabilities":null}', /capabilities is null/],
])('%s is refused', (text, message) => {
  expectProtocolError(() => decodeVersion(version(`${text}\0`)), 'VERSION', message);
});

test.each([
  ['{"max_msg_fds":"foo"}', /max_msg_fds is "foo"/],
  ['{"max_msg_fds":-1}', /max_msg_fds is -1/],
  ['{"max_msg_fds":65536}', /max_msg_fds/],
  ['{"max_msg_fds":1.5}', /max_msg_fds/],
  ['{"max_msg_fds":1e999}', /max_msg_fds is Infinity/],
  ['{"max_data_xfer_size":0}', /max_data_xfer_size is 0/],
  ['{"max_data_xfer_size":4294967296}', /max_data_xfer_size/],
  ['{"max_data_xfer_size":{}}', /an object/],
  ['{"max_dma_maps":-5}', /max_dma_maps/],
  ['{"pgsizes":4095}', /pgsizes/],
  ['{"pgsizes":6000}', /no multiple of 4096/],
  ['{"twin_socket":true}', /twin_socket is true/],
  ['{"twin_socket":{"supported":1}}', /twin_socket.supported/],
  ['{"twin_socket":{"supported":true,"fd_index":-1}}', /fd_index/],
  ['{"write_multiple":"yes"}', /write_multiple/],
])('capabilities %s are refused', (text, message) => {
  expectProtocolError(() => decodeVersion(withCapabilities(text)), 'VERSION', message);
});

test('short, long and broken payloads are refused', () => {
  expectProtocolError(() => decodeVersion(hex('000001')), 'VERSION', 'VERSION: 3 bytes, at least 4 expected');
  expectProtocolError(
    () => decodeVersion(version(' '.repeat(MAX_VERSION_JSON + 1))),
    'VERSION',
    /at most 16384/,
  );
  expectProtocolError(
    () => decodeVersion(version('['.repeat(MAX_VERSION_JSON))),
    'VERSION',
    /not valid JSON/,
  );
  expectProtocolError(() => decodeVersion(hex('00000100 22ff22 00')), 'VERSION', /not valid JSON/);
  expect(decodeVersion(version(' '.repeat(MAX_VERSION_JSON))).raw).toBeNull();
});

test.each([
  { maxMsgFds: -1 },
  { maxDataXferSize: 0 },
  { maxDmaMaps: NaN },
  { pageSizes: 100 },
  { pageSizes: 5000 },
  { twinSocket: { supported: true, fdIndex: -1 } },
])('%j cannot be encoded', (capabilities) => {
  expect(() => encodeVersion(0, 1, capabilities)).toThrow(RangeError);
});

test('versions of more than 16 bit cannot be encoded', () => {
  expect(() => encodeVersion(65536, 0, null)).toThrow(RangeError);
  expect(() => encodeVersion(0, -1, null)).toThrow(RangeError);
});

test('all capabilities come back', () => {
  const twin = fc.record(
    { supported: fc.boolean(), fdIndex: fc.nat({ max: 65535 }) },
    { requiredKeys: ['supported'] },
  );
  const some = fc.record({
    maxMsgFds: fc.nat({ max: 65535 }),
    maxDataXferSize: fc.integer({ min: 1, max: 0xffff_ffff }),
    maxDmaMaps: fc.nat({ max: 0xffff_ffff }),
    pageSizes: fc.integer({ min: 1, max: 2 ** 40 }).map((n) => n * 4096),
    twinSocket: twin,
    writeMultiple: fc.boolean(),
  });
  fc.assert(
    fc.property(some, (capabilities) => {
      expect(decodeVersion(encodeVersion(0, 1, capabilities)).capabilities).toEqual(capabilities);
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeVersion);
  fc.assert(
    fc.property(fc.json({ maxDepth: 3 }), (json) => {
      try {
        decodeVersion(withCapabilities(json));
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
      }
    }),
  );
});

test('each side obeys the limits of the other', () => {
  const ours = {
    ...defaultCapabilities(),
    maxMsgFds: 16,
    maxDataXferSize: 65536,
    twinSocket: { supported: true },
    writeMultiple: true,
  };
  const theirs = {
    ...defaultCapabilities(),
    maxMsgFds: 8,
    maxDmaMaps: 64,
    pageSizes: 0x201000,
    writeMultiple: true,
  };
  const limits = {
    maxMsgFds: 8,
    maxDataXferSize: 65536,
    maxDmaMaps: 64,
    pageSizes: 0x201000,
    twinSocket: false,
    writeMultiple: true,
  };
  expect(negotiateCapabilities(ours, theirs)).toEqual(limits);
  expect(negotiateCapabilities(theirs, ours)).toEqual({
    ...limits,
    maxMsgFds: 16,
    maxDmaMaps: 65535,
    pageSizes: 4096,
  });
  const both = { ...theirs, twinSocket: { supported: true, fdIndex: 0 }, writeMultiple: false };
  expect(negotiateCapabilities(ours, both)).toMatchObject({ twinSocket: true, writeMultiple: false });
});
