// SPDX-License-Identifier: MIT
import { ConfigSpace, PciRegion } from '../../lib/pci';
import {
  CommandError,
  Errno,
  serve,
  type PciDeviceModel,
  type ServedRegion,
  type Server,
} from '../../lib/server';
import { gate } from '../support/gate';
import { Scratch, cli, failure, startCli } from './run-cli';

const scratch = new Scratch();
const socket = scratch.file('device');
let server: Server | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});
afterAll(() => {
  scratch.remove();
});

const memory = (size: number): ServedRegion => ({ size, read: () => undefined, write: () => undefined });

/** ACCES PCI-IDIO-16, as libvfio-user's sample models it. */
const gpio = (config?: ServedRegion): PciDeviceModel => ({
  name: 'gpio',
  pci: {
    vendorId: 0x494f,
    deviceId: 0x0dc8,
    classCode: 0xff0000,
    interruptPin: 1,
    bars: { 2: { kind: 'io', ...memory(256) } },
    capabilities: [
      { kind: 'power-management' },
      { kind: 'serial-number', serialNumber: 0xfedc_ba98_7654_3210n },
    ],
  },
  ...(config && { regions: new Map([[PciRegion.config, config]]) }),
});

test('a device of any class, as text', async () => {
  server = await serve(socket, gpio());
  const { stdout, ...rest } = await cli(scratch, 'info', socket);
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout.split('\n')).toEqual(
    expect.arrayContaining([
      socket,
      'Protocol: vfio-user 0.1',
      'Device: 9 regions, 5 interrupt indexes, offers no reset',
      '  bar2    256B     read, write',
      '  config  4.00KiB  read, write',
      'PCI: Unassigned class, 494f:0dc8 ACCES I/O Products PCI-IDIO-16 GPIO',
      '  class      0xff0000, revision 0x00',
      '  cap 0x40   Power Management: version 3, in D0, no soft reset',
      '  cap 0x100  Device Serial Number: fedcba9876543210',
      'Message round trip: 40 reads of 4 bytes each way',
    ]),
  );
  expect(stdout).toMatch(/\n {2}intx +1 vector +eventfd/);
  expect(stdout).not.toContain('NVMe');
});

test('a device of any class, as JSON', async () => {
  server = await serve(socket, gpio());
  const { stdout, ...rest } = await cli(scratch, 'info', socket, '--json');
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  const report: unknown = JSON.parse(stdout);
  expect(report).toMatchObject({
    endpoint: socket,
    protocol: { version: '0.1', client: { maxMsgFds: 16 }, server: {}, serverJson: { capabilities: {} } },
    device: { resettable: false, regions: 9, irqs: 5 },
    pci: {
      header: { vendorId: 0x494f, deviceId: 0x0dc8, classCode: 0xff0000, interruptPin: 1 },
      vendor: 'ACCES I/O Products',
      device: 'PCI-IDIO-16 GPIO',
      class: 'Unassigned class',
      capabilities: { capabilities: [{ kind: 'power-management', offset: 0x40 }], problem: null },
      extendedCapabilities: {
        capabilities: [{ kind: 'serial-number', serialNumber: '0xfedcba9876543210' }],
        problem: null,
      },
    },
    nvme: null,
    roundTrip: { region: 7, offset: 0, samples: 40 },
  });
  expect(report).toHaveProperty('regions.2', {
    index: 2,
    name: 'bar2',
    size: 256,
    readable: true,
    writable: true,
    mappable: false,
    areas: [],
    fds: 0,
  });
  expect(report).toHaveProperty('irqs.0.count', 1);
  expect(report).toHaveProperty('roundTrip.sync.median');
});

test('configuration space that is read by registers only, with a capability list in a loop', async () => {
  const bytes = new ConfigSpace({ ...gpio().pci, bars: { 2: { kind: 'io', size: 256 } } }).read(0, 256);
  bytes[0x41] = 0x48; // the next of the capability at 40h
  bytes.set([0x09, 0x40, 0x04, 0xaa], 0x48); // vendor specific, next is 40h again
  const config: ServedRegion = {
    size: 256,
    read: (offset, data) => {
      if (data.length > 4) throw new CommandError(Errno.EINVAL, 'registers have 4 bytes');
      data.set(bytes.subarray(offset, offset + data.length));
    },
  };
  server = await serve(socket, gpio(config));
  const { stdout, ...rest } = await cli(scratch, 'info', socket);
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toContain('\n  cap 0x48   Vendor Specific: 4 bytes\n');
  expect(stdout).toContain('\n  problem    the list runs in a loop through 0x40\n');
});

test('configuration space that cannot be read at all is a problem, and no failure', async () => {
  const refuse = (): never => {
    throw new CommandError(Errno.EPERM, 'no');
  };
  server = await serve(socket, gpio({ size: 256, read: refuse, write: refuse }));
  const { stdout, ...rest } = await cli(scratch, 'info', socket);
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toMatch(/\nPCI: .*EPERM/);
  expect(stdout).toMatch(/\nMessage round trip: .*EPERM/);
});

test('an NVMe controller, whose registers refuse', async () => {
  const read = (): void => {
    throw new CommandError(Errno.EIO, 'broken');
  };
  server = await serve(socket, {
    name: 'broken',
    pci: {
      vendorId: 0x1234,
      deviceId: 1,
      classCode: 0x010802,
      bars: { 0: { kind: 'memory64', size: 0x2000, read } },
    },
  });
  const { stdout, ...rest } = await cli(scratch, 'info', socket);
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toContain('\nPCI: Non-volatile memory controller (NVM Express), 1234:0001\n');
  expect(stdout).toMatch(/\nNVMe: .*EIO/);
});

test('a device that stops answering in the middle', async () => {
  const stuck = gate();
  server = await serve(socket, gpio({ size: 4096, read: () => stuck.opened }));
  const { stderr, ...rest } = await cli(scratch, 'info', socket, '--timeout', '200ms');
  stuck.open();
  expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
  expect(stderr).toMatch(/^vfio-user: \S+ did not answer all questions within 200 ms; [^\n]*--timeout\n$/);
});

test('a time-out of 0 is wrong usage', async () => {
  const line =
    "Option --timeout does not accept '0'; it takes a duration such as 5, 500ms or 2m, from 0.001 to 86400 s";
  expect(await cli(scratch, 'info', socket, '--timeout', '0')).toEqual(failure(2, line));
});

test('a reader that closes the pipe is no error', async () => {
  server = await serve(socket, gpio());
  const running = startCli(scratch, 'info', socket);
  running.closeStdout();
  expect(await running.ended).toMatchObject({ status: 0, signal: null, stderr: '' });
});
