// SPDX-License-Identifier: MIT
/** A device's state through the kernel's descriptor. The bytes are those of `linux/vfio.h` (see fake-vfio.c). */
import { FakeKernel, testWithKernel } from './fake-kernel';

/** `vfio_device_feature` with `vfio_device_feature_mig_state`: argsz 16, SET of feature 2, the state, no descriptor. */
const set = (state: number): string => `MIG_DEVICE_STATE 10000000020002000${state}000000ffffffff`;
const [STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY] = [1, 2, 3, 4, 6].map(set);
/** What changes a state, or is loaded. */
const changes = (asked: readonly string[]): string[] =>
  asked.filter((line) => line.startsWith('MIG_DEVICE_STATE 10000000') || /^(RESET|LOADED)/.test(line));

const READ = `
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  say(Buffer.concat(chunks).toString());
  say(await device.migration.state());
  await device.close();
  say(openFds());`;

describe.each(['group', 'iommufd'])('through its %s', (through) => {
  testWithKernel('the state is read, while the device is stopped', () => {
    using kernel = new FakeKernel();
    const { said, asked } = kernel.run(`
      // What a process opens once is open after the first transfer.
      const first = await open({ through: '${through}' });
      await first.migration.setState('stopCopy');
      await first.migration.readData(64);
      await first.close();
      say(openFds());
      const device = await open({ through: '${through}' });
      await device.reset();
      say(await device.migration.supported());
      say(await device.migration.state());
      const stream = device.migration.createReadStream();
      ${READ}`);
    const [before, support, state, bytes, after, fds] = said;
    expect(support).toEqual({ stopCopy: true, preCopy: true, p2p: false });
    expect([state, bytes, after]).toEqual(['running', 'the state of a device', 'stop']);
    expect(fds).toBe(before);
    expect(asked[0]).toMatch(/^(BIND|GROUP_GET_DEVICE_FD)/);
    // GET of feature 1, with room for 4096 bytes of data.
    expect(asked).toContain('MIGRATION 08100000010001000000000000000000');
    expect(changes(asked)).toEqual([STOP_COPY, 'RESET ', STOP_COPY, STOP]);
  });
});

testWithKernel('most of it is read while the device runs, and the rest through the same descriptor', () => {
  using kernel = new FakeKernel();
  const { said, asked } = kernel.run(`
    const device = await open();
    await device.migration.setState('preCopy');
    say(await device.migration.preCopyInfo());
    await device.migration.setState('running');
    await failure(device.migration.preCopyInfo());
    const stream = device.migration.createReadStream({ preCopy: true });
    ${READ}`);
  expect(said.slice(0, 4)).toEqual([
    { initialBytes: 7, dirtyBytes: 0x1_2345_6789 },
    { code: 'ERR_VFIO_USER_SYSTEM', message: expect.stringMatching(/in no state in which its own/) },
    'precopy, the rest',
    'stop',
  ]);
  // struct vfio_precopy_info: argsz 24.
  expect(asked).toContain(`GET_PRECOPY_INFO 18000000${'00'.repeat(20)}`);
  expect(changes(asked)).toEqual([PRE_COPY, RUNNING, PRE_COPY, STOP_COPY, STOP]);
});

testWithKernel('the state is loaded, and the device runs', () => {
  using kernel = new FakeKernel();
  const { said, asked } = kernel.run(`
    const { pipeline } = require('node:stream/promises');
    const device = await open();
    await pipeline(['a state', ' in parts'].map(Buffer.from), device.migration.createWriteStream());
    say(await device.migration.state());
    await device.close();`);
  expect(said).toEqual(['running']);
  expect(changes(asked)).toEqual([
    RESUMING,
    STOP,
    `LOADED ${Buffer.from('a state in parts').toString('hex')}`,
    RUNNING,
  ]);
});

testWithKernel('a load that is given up resets the device', () => {
  using kernel = new FakeKernel();
  const { said, asked } = kernel.run(`
    const device = await open();
    const stream = device.migration.createWriteStream();
    await new Promise((resolve) => stream.write('half', resolve));
    stream.destroy();
    await new Promise((resolve) => stream.on('close', resolve));
    say(await device.migration.state());
    await device.close();`);
  expect(said).toEqual(['running']);
  expect(changes(asked)).toEqual([RESUMING, 'RESET ']);
});

testWithKernel('a transfer ends with its device', () => {
  using kernel = new FakeKernel();
  const { said } = kernel.run(`
    const device = await open();
    const stream = device.migration.createWriteStream();
    await new Promise((resolve) => stream.write('half', resolve));
    const ended = new Promise((resolve) => stream.on('error', ({ code, message }) => resolve({ code, message })));
    await device.close();
    say(await ended);
    await failure(device.migration.state());`);
  expect(said).toEqual([
    {
      code: 'ERR_VFIO_USER_CLOSED',
      message: expect.stringMatching(/as the device was closed; begin it anew/),
    },
    { code: 'ERR_VFIO_USER_CLOSED', message: expect.stringContaining('is closed') },
  ]);
});

testWithKernel('a device that fails on its way tells in which state it is', () => {
  using kernel = new FakeKernel();
  const { said } = kernel.run(
    `const device = await open();
     await failure(device.migration.setState('stop'));
     await failure(device.migration.setState('running'));
     await device.reset();
     say(await device.migration.state());
     await device.close();`,
    { fail: 'MIG_DEVICE_STATE=5' },
  );
  expect(said).toEqual([
    {
      code: 'ERR_VFIO_USER_MIGRATION',
      message:
        '0000:01:00.0 failed to go from running to stop (EIO); it is in state error now, out of which only a reset leads',
    },
    {
      code: 'ERR_VFIO_USER_MIGRATION',
      message: '0000:01:00.0 is in state error, from which no transition leads to running; reset the device',
    },
    'running',
  ]);
});

testWithKernel('a device without a driver for that', () => {
  using kernel = new FakeKernel();
  const { said } = kernel.run(
    `const device = await open();
     say(await device.migration.supported());
     const stream = device.migration.createReadStream();
     say(await new Promise((resolve) => stream.on('error', ({ code, message }) => resolve({ code, message }))));
     await device.close();`,
    { lacks: 'MIGRATION' },
  );
  expect(said).toEqual([
    { stopCopy: false, preCopy: false, p2p: false },
    { code: 'ERR_VFIO_USER_UNSUPPORTED', message: '0000:01:00.0 does not offer migration' },
  ]);
});
