// SPDX-License-Identifier: MIT
/** Replies of a real peer, as they came over its socket: SPDK 26.09-pre (libvfio-user of March 2026), NVMe over a malloc bdev. */
import {
  HEADER_SIZE,
  decodeDeviceInfoReply,
  decodeDmaUnmapReply,
  decodeHeader,
  decodeIrqInfoReply,
  decodeRegionInfoReply,
  decodeRegionIoFdsReply,
  decodeRegionReadReply,
  decodeRegionWriteReply,
  decodeVersion,
  encodeDmaUnmapRequest,
  encodeRegionInfoRequest,
  isError,
  isReply,
  type Header,
} from '../../lib/protocol';

function message(hex: string): { header: Header; payload: Uint8Array } {
  const bytes = Uint8Array.from(Buffer.from(hex, 'hex'));
  const header: Header = { id: 0, command: 0, size: 0, flags: 0, error: 0 };
  decodeHeader(new DataView(bytes.buffer), 0, header);
  expect(header.size).toBe(bytes.length);
  expect(isReply(header.flags)).toBe(true);
  return { header, payload: bytes.subarray(HEADER_SIZE) };
}

test('VERSION', () => {
  const { payload } = message(
    '010001005c0000000100000000000000000001007b20226361706162696c6974696573223a207b20226d61785f6d73675f666473223a20382c20226d61785f646174615f786665725f73697a65223a2031303438353736207d207d00',
  );
  const { major, minor, capabilities } = decodeVersion(payload);
  expect([major, minor]).toEqual([0, 1]);
  expect(capabilities).toMatchObject({ maxMsgFds: 8, maxDataXferSize: 1048576, writeMultiple: false });
});

test('DEVICE_GET_INFO', () => {
  const { payload } = message('0200040020000000010000000000000010000000030000000900000005000000');
  expect(decodeDeviceInfoReply(payload)).toEqual({
    argsz: 16,
    complete: true,
    flags: 3,
    numRegions: 9,
    numIrqs: 5,
  });
});

test('DEVICE_GET_REGION_INFO of BAR 0 with room for the structure alone: MMAP is set, the capability is left out', () => {
  const { payload } = message(
    '030005003000000001000000000000004000000007000000000000000000000000400000000000000000000000000000',
  );
  expect(decodeRegionInfoReply(payload, { index: 0 })).toEqual({
    argsz: 64,
    complete: false,
    flags: 7,
    index: 0,
    size: 0x4000,
    offset: 0,
    capabilities: [],
  });
});

test('DEVICE_GET_REGION_INFO of BAR 0 with room for its sparse area', () => {
  const { payload } = message(
    '04000500500000000100000000000000400000000f0000000000000020000000004000000000000000000000000000000100010000000000010000000000000000100000000000000010000000000000',
  );
  expect(decodeRegionInfoReply(payload, { index: 0 })).toEqual({
    argsz: 64,
    complete: true,
    flags: 15,
    index: 0,
    size: 0x4000,
    offset: 0,
    capabilities: [{ kind: 'sparseMmap', areas: [{ offset: 0x1000, size: 0x1000 }] }],
  });
});

test('DEVICE_GET_REGION_INFO takes the request that was sent for it', () => {
  expect(Buffer.from(encodeRegionInfoRequest({ index: 0, argsz: 4096 })).toString('hex')).toBe(
    '0010000000000000000000000000000000000000000000000000000000000000',
  );
});

test('DEVICE_GET_IRQ_INFO of MSI-X', () => {
  const { payload } = message('0600070020000000010000000000000010000000010000000200000000020000');
  expect(decodeIrqInfoReply(payload, { index: 2 })).toMatchObject({ flags: 1, index: 2, count: 512 });
});

test('REGION_READ of CAP', () => {
  const { payload } = message(
    '0700090028000000010000000000000000000000000000000000000008000000ff00011e20000008',
  );
  const { data } = decodeRegionReadReply(payload, { offset: 0, region: 0, count: 8 });
  expect(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true)).toBe(0x0800_0020_1e01_00ffn);
});

test('REGION_WRITE', () => {
  const { payload } = message('08000a0020000000010000000000000024000000000000000000000004000000');
  expect(decodeRegionWriteReply(payload, { offset: 0x24, region: 0, count: 4 })).toEqual({
    offset: 0x24,
    region: 0,
    count: 4,
  });
});

test('an error reply has its errno, and here a payload that the specification does not give it', () => {
  const { header, payload } = message(
    '0900090022000000210000001600000000000000000000000000000002000000' + '0000',
  );
  expect(isError(header.flags)).toBe(true);
  expect(header.error).toBe(22);
  expect(payload).toHaveLength(18);
});

test('DMA_UNMAP, request and reply', () => {
  const asked = { flags: 0, address: 0x100000, size: 0x1000 };
  const { payload } = message(
    '0c000300280000000100000000000000180000000000000000001000000000000010000000000000',
  );
  expect(decodeDmaUnmapReply(payload, asked)).toEqual({ argsz: 24, complete: true });
  expect(Buffer.from(encodeDmaUnmapRequest(asked)).toString('hex')).toBe(
    Buffer.from(payload).toString('hex'),
  );
});

test.each([
  ['DMA_MAP', '0b000200100000000100000000000000'],
  ['DEVICE_SET_IRQS', '0d000800100000000100000000000000'],
  ['DEVICE_RESET', '0e000d00100000000100000000000000'],
])('%s is answered with a header alone', (_, hex) => {
  expect(message(hex).payload).toHaveLength(0);
});

test('DEVICE_GET_REGION_IO_FDS of a region without any', () => {
  const { payload } = message('0f00060020000000010000000000000010000000000000000000000000000000');
  expect(decodeRegionIoFdsReply(payload, { index: 0, fdCount: 0 })).toMatchObject({ index: 0 });
});

test.each([
  ['DMA_UNMAP of what is not mapped', '0a000300100000002100000002000000', 2],
  ['DEVICE_FEATURE that is not supported', '10001000100000002100000016000000', 22],
  ['a command that does not exist', '11000e00100000002100000016000000', 22],
])('%s is refused', (_, hex, errno) => {
  const { header } = message(hex);
  expect([isError(header.flags), header.error]).toEqual([true, errno]);
});
