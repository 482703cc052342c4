// SPDX-License-Identifier: MIT
/** What the kernel answers with an errno, and what that means for a device. */
import { FakeKernel, testWithKernel, type FakeFaults } from './fake-kernel';

function told(body: string, faults: FakeFaults): unknown[] {
  using kernel = new FakeKernel();
  return kernel.run(`const device = await open(); ${body} await device.close();`, faults).said;
}

describe('an interrupt index', () => {
  const pass = `await (await device.irq('msix')).pass({ data: 'none', action: 'trigger', start: 0, count: 0 });`;

  testWithKernel('that is not enabled is disabled, though the kernel refuses that', () => {
    expect(told(`${pass} say('disabled');`, { fail: 'SET_IRQS=22 IRQ_INFO=22' })).toEqual(['disabled']);
  });

  testWithKernel('that cannot be disabled for another reason is not', () => {
    const body = `await failure((async () => { ${pass} })());`;
    expect(told(body, { fail: 'SET_IRQS=5 IRQ_INFO=22' })).toEqual([
      { code: 'ERR_VFIO_USER_SYSTEM', message: expect.stringMatching(/VFIO_DEVICE_SET_IRQS.*EIO/) },
    ]);
  });
});

describe('a reset', () => {
  const reset = 'await failure(device.reset());';

  testWithKernel.each([22, 25])('that the device does not have is unsupported (errno %d)', (errno) => {
    expect(told(reset, { fail: `RESET=${errno}`, lacks: 'FLAG_RESET' })).toEqual([
      {
        code: 'ERR_VFIO_USER_UNSUPPORTED',
        message: expect.stringMatching(/^0000:01:00\.0 cannot be reset by itself; a hot reset/),
      },
    ]);
  });

  testWithKernel('that fails says so', () => {
    expect(told(reset, { fail: 'RESET=22' })).toEqual([
      { code: 'ERR_VFIO_USER_SYSTEM', message: expect.stringMatching(/VFIO_DEVICE_RESET.*EINVAL/) },
    ]);
  });

  testWithKernel('that is there, though the device does not say so, is done', () => {
    expect(told(`await device.reset(); say('done');`, { lacks: 'FLAG_RESET' })).toEqual(['done']);
  });
});
