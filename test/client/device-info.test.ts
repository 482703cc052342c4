// SPDX-License-Identifier: MIT
import { GET_INFO, GET_IRQ_INFO, GET_REGION_INFO, RESET, failure, fakeDevice, u32 } from './support';

/** `struct vfio_device_info`: argsz, flags, num_regions, num_irqs. */
const info = (flags: number, regions = 9, irqs = 5): Uint8Array => u32(16, flags, regions, irqs);

test('the info of a PCI device is asked for once', async () => {
  const { device, server } = await fakeDevice({ [GET_INFO]: info(3) });
  expect(await device.info()).toEqual({ resettable: true, regionCount: 9, irqCount: 5 });
  await device.info();
  expect(server.payloads(GET_INFO)).toEqual(['10000000' + '00000000'.repeat(3)]);
});

test('a device that is not a PCI device', async () => {
  const { device } = await fakeDevice({ [GET_INFO]: info(4) });
  await expect(device.info()).rejects.toMatchObject(failure('ERR_VFIO_USER_PCI', 'flags 0x4'));
});

test('counts that cannot be are cut', async () => {
  const { device } = await fakeDevice({ [GET_INFO]: info(2, 0xffff_ffff, 0xffff_ffff) });
  expect(await device.info()).toEqual({ resettable: false, regionCount: 4096, irqCount: 4096 });
});

test('a short reply', async () => {
  const { device } = await fakeDevice({ [GET_INFO]: u32(16, 2, 9) });
  await expect(device.info()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
});

test('an error reply carries the errno and its name', async () => {
  const { device } = await fakeDevice({ [GET_INFO]: 22 });
  await expect(device.info()).rejects.toMatchObject({
    ...failure('ERR_VFIO_USER_REMOTE', 'refused DEVICE_GET_INFO: EINVAL'),
    errno: 22,
    errnoName: 'EINVAL',
    command: 'DEVICE_GET_INFO',
  });
});

test('an error without an errno, as rust-vmm sends it', async () => {
  const { device } = await fakeDevice({ [GET_INFO]: { flags: 0x21, errno: 0 } });
  await expect(device.info()).rejects.toMatchObject({ ...failure('ERR_VFIO_USER_REMOTE'), errno: 0 });
});

test('a reply to another command', async () => {
  const { device } = await fakeDevice({ [GET_INFO]: { payload: info(2), command: GET_IRQ_INFO } });
  await expect(device.info()).rejects.toMatchObject(failure('ERR_VFIO_USER_PROTOCOL', 'DEVICE_GET_IRQ_INFO'));
});

test('a failure is not remembered', async () => {
  let answer: number | Uint8Array = 16;
  const { device, server } = await fakeDevice({ [GET_INFO]: () => answer });
  await expect(device.info()).rejects.toMatchObject({ errnoName: 'EBUSY' });
  await expect(device.reset()).rejects.toMatchObject({ errnoName: 'EBUSY' });
  answer = info(3);
  expect((await device.info()).resettable).toBe(true);
  await device.reset();
  expect([server.count(GET_INFO), server.count(RESET)]).toEqual([3, 1]);
});

test('a failure is not remembered for regions and interrupts', async () => {
  let answer = 16;
  const { device, server } = await fakeDevice({
    [GET_REGION_INFO]: () => answer,
    [GET_IRQ_INFO]: () => answer,
  });
  await expect(device.region(0)).rejects.toMatchObject({ errnoName: 'EBUSY' });
  await expect(device.irq(0)).rejects.toMatchObject({ errnoName: 'EBUSY' });
  answer = 5;
  await expect(device.region(0)).rejects.toMatchObject({ errnoName: 'EIO' });
  await expect(device.irq(0)).rejects.toMatchObject({ errnoName: 'EIO' });
  expect(server.count(GET_REGION_INFO)).toBe(2);
});

test.each([-1, 0.5, 4096, NaN])('index %p cannot be', async (index) => {
  const { device, server } = await fakeDevice();
  await expect(device.region(index)).rejects.toMatchObject({
    code: 'ERR_OUT_OF_RANGE',
    message: expect.stringContaining(`has no region ${index}; give a name`) as string,
  });
  await expect(device.irq(index)).rejects.toMatchObject({
    code: 'ERR_OUT_OF_RANGE',
    message: expect.stringContaining(`has no interrupt ${index}; give a name`) as string,
  });
  expect(server.heard).toHaveLength(1);
});

describe('reset', () => {
  test('of a device that offers it', async () => {
    const { device, server } = await fakeDevice({ [GET_INFO]: info(3) });
    await device.reset();
    expect(server.payloads(RESET)).toEqual(['']);
  });

  test('of one that does not: nothing is sent', async () => {
    const { device, server } = await fakeDevice({ [GET_INFO]: info(2) });
    await expect(device.reset()).rejects.toMatchObject(failure('ERR_VFIO_USER_UNSUPPORTED', 'reset'));
    expect(server.count(RESET)).toBe(0);
  });

  test('that fails', async () => {
    const { device } = await fakeDevice({ [GET_INFO]: info(3), [RESET]: 5 });
    await expect(device.reset()).rejects.toMatchObject({ errnoName: 'EIO', command: 'DEVICE_RESET' });
  });

  test('has a time-out of its own', async () => {
    const { device } = await fakeDevice({ [GET_INFO]: info(3), [RESET]: 'silence' }, { quiesceTimeout: 20 });
    await expect(device.reset()).rejects.toMatchObject(failure('ERR_VFIO_USER_TIMEOUT', '20 ms'));
  });
});
