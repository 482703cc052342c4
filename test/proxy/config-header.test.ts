// SPDX-License-Identifier: MIT
/** Configuration space as each client finds it, of a device whose reset leaves it alone. */
import { ConfigHeader } from '../../lib/proxy/config-header';

/** Registers that keep what is written. */
class Space {
  readonly view = new DataView(new ArrayBuffer(256));
  readonly written: number[] = [];
  readBytes(offset: number, length: number): Promise<Uint8Array> {
    return Promise.resolve(new Uint8Array(this.view.buffer.slice(offset, offset + length)));
  }
  write16(offset: number, value: number): Promise<void> {
    this.written.push(offset);
    this.view.setUint16(offset, value, true);
    return Promise.resolve();
  }
  write32(offset: number, value: number): Promise<void> {
    this.written.push(offset);
    this.view.setUint32(offset, value, true);
    return Promise.resolve();
  }
}

test('it is as before the first client, without Bus Master Enable; what has not changed is not written', async () => {
  const space = new Space();
  for (const [offset, value] of [
    [0, 0x5678_1234],
    [4, 0x0010_0006],
    [8, 0x0108_0201],
    [0x10, 0xfe00_0004],
  ] as const)
    space.view.setUint32(offset, value, true);
  const header = await ConfigHeader.of(space);
  expect(header.identity).toEqual({ vendorId: 0x1234, deviceId: 0x5678, classCode: 0x010802 });
  const before = space.view.buffer.slice(0);
  space.view.setUint16(4, 0x0407, true);
  space.view.setUint32(0x10, 0xffff_c004, true);
  space.view.setUint8(0x3c, 11);
  await header.silence();
  expect(space.view.getUint16(4, true)).toBe(2);
  await header.restore();
  expect(space.written).toEqual([4, 0x10, 0x3c]);
  space.view.setUint16(4, 6, true);
  expect(space.view.buffer).toEqual(before);
});
