// SPDX-License-Identifier: MIT
/** Messages of QEMU 11.1.3 (Debian), as `vfio-user-pci` sent them over its socket to the server of this package. */
import {
  HEADER_SIZE,
  decodeDeviceInfoRequest,
  decodeDmaMapRequest,
  decodeDmaReadReply,
  decodeDmaUnmapRequest,
  decodeDmaWriteReply,
  decodeHeader,
  decodeIrqInfoRequest,
  decodeRegionInfoRequest,
  decodeRegionReadRequest,
  decodeRegionWriteRequest,
  decodeSetIrqsRequest,
  decodeVersion,
  encodeDmaReadRequest,
  encodeDmaWriteRequest,
  isNoReply,
  isReply,
  type Header,
} from '../../lib/protocol';

const MIB = 1 << 20;

function message(command: number, hex: string): { header: Header; payload: Uint8Array } {
  const bytes = Uint8Array.from(Buffer.from(hex, 'hex'));
  const header: Header = { id: 0, command: 0, size: 0, flags: 0, error: 0 };
  decodeHeader(new DataView(bytes.buffer), 0, header);
  expect([header.command, header.size]).toEqual([command, bytes.length]);
  return { header, payload: bytes.subarray(HEADER_SIZE) };
}

/** The payload of a command that wants a reply. */
function request(command: number, hex: string): Uint8Array {
  const { header, payload } = message(command, hex);
  expect(header.flags).toBe(0);
  return payload;
}

test('VERSION: 0.0, with capabilities of which not all are known to the specification', () => {
  const json =
    '{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, ' +
    '"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "write_multiple": true}}';
  const text = Buffer.from(`${json}\0`).toString('hex');
  const { major, minor, capabilities } = decodeVersion(
    request(1, `00000100d6000000000000000000000000000000${text}`),
  );
  expect([major, minor]).toEqual([0, 0]);
  expect(capabilities).toEqual({
    pageSizes: 4096,
    maxMsgFds: 16,
    maxDmaMaps: 65535,
    maxDataXferSize: MIB,
    writeMultiple: true,
    twinSocket: { supported: false },
  });
});

// RAM; the firmware's ROM, without a descriptor; a part of the RAM that the firmware has write-protected; the doorbells of
// an NVMe controller that QEMU has mapped, without a descriptor.
test.each([
  [
    '010002003000000000000000000000002000000003000000000000000000000000000000000000000000001000000000',
    { flags: 3, offset: 0, address: 0, size: 0x1000_0000 },
  ],
  [
    '02000200300000000000000000000000200000000100000000000000000000000000fcff000000000000040000000000',
    { flags: 1, offset: 0, address: 0xfffc_0000, size: 0x4_0000 },
  ],
  [
    '74000200300000000000000000000000200000000100000000300c000000000000300c00000000000050010000000000',
    { flags: 1, offset: 0xc_3000, address: 0xc_3000, size: 0x1_5000 },
  ],
  [
    '55000200300000000000000000000000200000000300000000000000000000000090bffe000000000010000000000000',
    { flags: 3, offset: 0, address: 0xfebf_9000, size: 0x1000 },
  ],
])('DMA_MAP %#', (hex, expected) => {
  expect(decodeDmaMapRequest(request(2, hex))).toEqual(expected);
});

test('DMA_UNMAP', () => {
  const hex = '24000300280000000000000000000000180000000000000000000000000000000000001000000000';
  expect(decodeDmaUnmapRequest(request(3, hex))).toMatchObject({ flags: 0, address: 0, size: 0x1000_0000 });
});

test('DEVICE_GET_INFO, DEVICE_GET_REGION_INFO with room for the structure and for more, DEVICE_GET_IRQ_INFO', () => {
  expect(
    decodeDeviceInfoRequest(request(4, '0300040020000000000000000000000010000000000000000000000000000000')),
  ).toEqual({ argsz: 16 });
  const zeros = '00'.repeat(24);
  for (const [argsz, hex] of [
    [32, '0400050030000000000000000000000020000000'],
    [64, '0500050030000000000000000000000040000000'],
  ] as const)
    expect(decodeRegionInfoRequest(request(5, `${hex}00000000${zeros}`))).toEqual({ argsz, index: 0 });
  expect(
    decodeIrqInfoRequest(request(7, '0c00070020000000000000000000000010000000000000000300000000000000')),
  ).toEqual({ argsz: 16, index: 3 });
});

// 36 bytes whatever comes with them: the eventfd of a vector of MSI-X, none to take it away, the end of all; INTx unmasked.
test.each([
  ['430108002400000000000000000000001400000024000000020000000000000001000000', 'eventfd', 'trigger', 2, 1],
  ['3a0108002400000000000000000000001400000021000000020000000000000000000000', 'none', 'trigger', 2, 0],
  ['ae0008002400000000000000000000001400000011000000000000000000000001000000', 'none', 'unmask', 0, 1],
])('DEVICE_SET_IRQS %#', (hex, data, action, index, count) => {
  expect(decodeSetIrqsRequest(request(8, hex))).toEqual({ data, action, index, start: 0, count });
});

test('REGION_READ of all configuration space, REGION_WRITE of its command register', () => {
  const read = '0d00090020000000000000000000000000000000000000000700000000100000';
  expect(decodeRegionReadRequest(request(9, read), MIB)).toEqual({ offset: 0, region: 7, count: 4096 });
  const write = '54000a00220000000000000000000000040000000000000007000000020000000301';
  expect(decodeRegionWriteRequest(request(10, write), MIB)).toEqual({
    offset: 4,
    region: 7,
    count: 2,
    data: Uint8Array.of(3, 1),
  });
});

test('REGION_WRITE that is posted, which QEMU does for memory BARs until it sees a region that can be mapped', () => {
  const { header, payload } = message(
    10,
    'ac000a002100000010000000000000000000000000000000020000000100000001',
  );
  expect([isReply(header.flags), isNoReply(header.flags)]).toEqual([false, true]);
  expect(decodeRegionWriteRequest(payload, MIB)).toMatchObject({ offset: 0, region: 2, count: 1 });
});

test('DEVICE_RESET', () => {
  expect(request(13, '1c000d00100000000000000000000000')).toHaveLength(0);
});

test('replies to DMA_WRITE and DMA_READ: counts of 8 bytes, and 16 bytes for the former', () => {
  const asked = { address: 0x10_0000, count: 8 };
  const write = message(12, '01000c0020000000010000000000000000001000000000000800000000000000');
  expect(isReply(write.header.flags)).toBe(true);
  expect(decodeDmaWriteReply(write.payload, asked)).toEqual(asked);
  expect(encodeDmaWriteRequest(asked)).toEqual(write.payload);
  const read = message(
    11,
    '02000b00280000000100000000000000000010000000000008000000000000000707070707070707',
  );
  expect(isReply(read.header.flags)).toBe(true);
  expect(decodeDmaReadReply(read.payload, asked)).toEqual({
    ...asked,
    data: new Uint8Array(8).fill(7),
    countSize: 8,
  });
  expect(encodeDmaReadRequest(asked)).toEqual(read.payload.subarray(0, 16));
});
