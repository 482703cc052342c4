// SPDX-License-Identifier: MIT
import { PciRegion } from '../../lib/pci';
import { serve, type PciDeviceModel } from '../../lib/server';

const pci = { vendorId: 0x1234, deviceId: 1, classCode: 0xff0000 };
const path = `@vfio-user-declarations-${process.pid}`;

/** As a JavaScript caller writes a model, whom no compiler stops. */
const model = (more: object = {}): PciDeviceModel => ({
  name: 'test',
  pci,
  ...more,
});
const withRegion = (region: unknown): PciDeviceModel =>
  model({ regions: new Map([[PciRegion.bar0, region]]) });

async function refusal(served: PciDeviceModel, options: object = {}): Promise<string> {
  const serving = serve(path, served, options);
  await expect(serving).rejects.toMatchObject({ name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' });
  return serving.then(String, (error: unknown) => (error as Error).message);
}

test.each<[string, PciDeviceModel, RegExp]>([
  [
    'a key that is not known',
    model({ atach: () => undefined }),
    /^device model: unknown key "atach"; known are name, .*attach/,
  ],
  ['no function', model({ pci: undefined }), /^device model: the key "pci" is missing/],
  [
    'regions that are no Map',
    model({ regions: { 0: { size: 16 } } }),
    /^regions of device model test is no Map/,
  ],
  [
    'a region that is undefined',
    withRegion(undefined),
    /^region 0 of device model test: undefined is no object/,
  ],
  [
    'a mistyped handler',
    withRegion({ size: 16, raed: () => undefined }),
    /^region 0 of device model test: unknown key "raed"/,
  ],
  [
    'a type without a subtype',
    withRegion({ size: 16, type: { type: 1 } }),
    /^type of region 0 .*: the key "subtype" is missing/,
  ],
  [
    'a file without a descriptor',
    withRegion({ size: 16, shared: { offset: 0, areas: [] } }),
    /^shared of region 0 .*: the key "fd" is missing/,
  ],
  [
    'a file that is no descriptor',
    withRegion({ size: 16, shared: { fd: '3', offset: 0, areas: [] } }),
    /^shared of region 0 .*: fd is '3'; give a descriptor, or a function that returns one for a client$/,
  ],
  [
    'an area without a size',
    withRegion({ size: 16, shared: { fd: 0, offset: 0, areas: [{ offset: 0, length: 16 }] } }),
    /^areas of region 0 .*: unknown key "length"; known are offset, size/,
  ],
  [
    'an ioFd of no kind',
    withRegion({ size: 16, ioFds: [{ offset: 0, size: 4, fd: 1 }] }),
    /^ioFds of region 0 .*: kind is undefined; it is one of "ioeventfd"/,
  ],
  [
    'an ioeventfd without a descriptor',
    withRegion({ size: 16, ioFds: [{ kind: 'ioeventfd', offset: 0, size: 4 }] }),
    /: the key "fd" is missing/,
  ],
  [
    'shadow memory nowhere',
    withRegion({
      size: 16,
      ioFds: [{ kind: 'shadow-ioeventfd', offset: 0, size: 4, fd: 1, shadow: { fd: 1 } }],
    }),
    /^shadow in ioFds .*: the key "offset" is missing/,
  ],
  [
    'a socket without user data',
    withRegion({ size: 16, ioFds: [{ kind: 'ioregionfd', offset: 0, size: 4, fd: 1 }] }),
    /both fd and userData, or neither/,
  ],
  [
    'user data without a socket',
    withRegion({ size: 16, ioFds: [{ kind: 'ioregionfd', offset: 0, size: 4, userData: 1 }] }),
    /both fd and userData, or neither/,
  ],
  [
    'a migration that cannot load',
    model({ reset: () => undefined, migration: { save: () => [] } }),
    /^migration of device model test: the key "load" is missing/,
  ],
])('a model with %s is refused', async (_name, wrong, message) => {
  expect(await refusal(wrong)).toMatch(message);
});

test.each<[object, RegExp]>([
  [
    { versionTimeOut: 5 },
    /^options of serve: unknown key "versionTimeOut"; known are mode, owner, accept, messageTimeout, versionTimeout/,
  ],
  [
    { capabilities: { max_msg_fds: 1 } },
    /^capabilities of serve: unknown key "max_msg_fds"; known are maxMsgFds/,
  ],
])('options %j are refused', async (options, message) => {
  expect(await refusal(model(), options)).toMatch(message);
});

test('an instance of a class may have members of its own', async () => {
  class Card implements PciDeviceModel {
    readonly name = 'card';
    readonly pci = pci;
    pins = 16;
  }
  await (await serve(path, new Card())).close();
});
