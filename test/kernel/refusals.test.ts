// SPDX-License-Identifier: MIT
/** What the kernel refuses, and what is said of it. */
import { ADDRESS, FakeKernel, testWithKernel, type FakeFaults } from './fake-kernel';
import type { FakeFunction } from './fake-system';

/** Opens the device; what is said when that fails, without the name of the fake system. */
function refused(
  { through = 'group', vfToken }: { through?: string; vfToken?: string },
  faults: FakeFaults,
  device: FakeFunction = {},
): { code: string; message: string; asked: readonly string[] } {
  using kernel = new FakeKernel(device);
  kernel.system.add('0000:01:00.1', { driver: 'xhci_hcd', group: 1, class: '0x0c0330' });
  const { said, asked } = kernel.run(`await failure(open(${JSON.stringify({ through, vfToken })}));`, faults);
  const { code, message } = said[0] as { code: string; message: string };
  return { code, message: message.replaceAll(kernel.system.root, ''), asked };
}

const TOKEN = 'BD8D9D2B-5a5f-4f5a-a211-f591514ba1f3';
const TOKEN_BYTES = 'bd8d9d2b5a5f4f5aa211f591514ba1f3';
const VF: FakeFunction = { physfn: '0000:01:00.2' };

testWithKernel('a group that is not viable: which other devices', () => {
  expect(refused({}, { lacks: 'VIABLE' })).toMatchObject({
    code: 'ERR_VFIO_USER_CONNECT',
    message:
      `${ADDRESS} cannot be opened: its IOMMU group 1 is not viable, as the IOMMU cannot keep its devices apart and drivers are ` +
      'bound to 0000:01:00.1 (xhci_hcd). Unbind them, or `vfio-user bind` them too',
  });
});

testWithKernel.each([
  [
    'group',
    'OPEN=13',
    'ERR_VFIO_USER_CONNECT',
    /permission denied \(Opening \/dev\/vfio\/vfio.*Run as root, or give the nodes to your user: chown \$USER \/dev\/vfio\/1 \/dev\/vfio\/devices\/vfio0 \/dev\/iommu$/,
  ],
  ['group', 'OPEN=1', 'ERR_VFIO_USER_CONNECT', /permission denied .*a container has to be given the device$/],
  [
    'group',
    'SET_IOMMU=1',
    'ERR_VFIO_USER_CONNECT',
    /want of interrupt remapping.*allow_unsafe_interrupts=1 of the module vfio_iommu_type1/,
  ],
  [
    'iommufd',
    'ATTACH=1',
    'ERR_VFIO_USER_CONNECT',
    /want of interrupt remapping.*of iommufd for \/dev\/iommu/,
  ],
  [
    'group',
    'OPEN=16',
    'ERR_VFIO_USER_BUSY',
    /another process uses it or another device of its IOMMU group 1; `fuser -v \/dev\/vfio\/\*` tells which$/,
  ],
  ['iommufd', 'BIND=22', 'ERR_VFIO_USER_BUSY', /another process uses it/],
  [
    'iommufd',
    'BIND=1',
    'ERR_VFIO_USER_CONNECT',
    /group 1 is not viable.*bound to 0000:01:00\.1 \(xhci_hcd\)/,
  ],
  [
    'group',
    'GROUP_GET_DEVICE_FD=19',
    'ERR_VFIO_USER_CONNECT',
    /may just have been unplugged: `vfio-user devices` lists what is there$/,
  ],
  ['group', 'GROUP_GET_DEVICE_FD=22', 'ERR_VFIO_USER_CONNECT', /the kernel refuses it \(/],
])('through its %s, %s', (through, fail, code, message) => {
  expect(refused({ through }, { fail })).toMatchObject({ code, message: expect.stringMatching(message) });
});

describe('a virtual function', () => {
  testWithKernel.each([
    ['group', 'GROUP_GET_DEVICE_FD=13'],
    ['iommufd', 'BIND=13'],
  ])('whose physical function a program has, through its %s', (through, fail) => {
    const message =
      `${ADDRESS} cannot be opened: the kernel wants a VF token for it (EACCES): it is a virtual function of 0000:01:00.2, which is ` +
      'bound to vfio-pci. First a program opens 0000:01:00.2 with the option vfToken (--vf-token on the command line), a UUID of its choice, then this one is opened with the same';
    expect(refused({ through }, { fail }, VF)).toMatchObject({ code: 'ERR_VFIO_USER_CONNECT', message });
    expect(refused({ through, vfToken: TOKEN }, { fail }, VF).message).toContain('has another VF token');
  });

  testWithKernel.each([
    ['group', 'GROUP_GET_DEVICE_FD=22'],
    ['iommufd', 'BIND=22'],
  ])('that needs no token, or whose kernel knows none, through its %s', (through, fail) => {
    expect(refused({ through, vfToken: TOKEN }, { fail }, VF)).toMatchObject({
      code: 'ERR_VFIO_USER_CONNECT',
      message: expect.stringMatching(
        /Linux takes it from 6\.17 on\. Leave the option vfToken \(--vf-token on the command line\) out, or open it through its group$/,
      ),
    });
  });

  testWithKernel('a token that is none', () => {
    expect(refused({ vfToken: 'secret' }, {}, VF)).toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: 'a VF token is a UUID, such as bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3, got secret',
      asked: [],
    });
  });

  testWithKernel('is opened with its token', () => {
    using kernel = new FakeKernel(VF);
    const { said, asked } = kernel.run(`
      for (const through of ['group', 'iommufd']) {
        const device = await open({ through, vfToken: '${TOKEN}' });
        say(device.through);
        await device.close();
      }`);
    expect(said).toEqual(['group', 'iommufd']);
    const name = Buffer.from(`${ADDRESS} vf_token=${TOKEN}`).toString('hex');
    expect(asked.filter((line) => /^(GROUP_GET|BIND|token)/.test(line))).toEqual([
      `GROUP_GET_DEVICE_FD ${name}`,
      // struct vfio_device_bind_iommufd: argsz 24, FLAG_TOKEN, the descriptor of the iommufd, no id yet.
      expect.stringMatching(/^BIND 1800000001000000[0-9a-f]{8}00000000\[pointer\]$/),
      `token ${TOKEN_BYTES}`,
    ]);
  });
});

testWithKernel(
  'with a token the group is taken, which knows tokens on every kernel, where there is one',
  () => {
    const by = `
    const device = await open({ vfToken: '${TOKEN}' });
    say(device.through);
    await device.close();`;
    using kernel = new FakeKernel(VF);
    expect(kernel.run(by).said).toEqual(['group']);
    using without = new FakeKernel({ ...VF, group: 2 });
    expect(without.run(by).said).toEqual(['iommufd']);
  },
);

testWithKernel('without a token, the structure is that of kernels which know none', () => {
  using kernel = new FakeKernel();
  const { asked } = kernel.run(`await (await open({ through: 'iommufd' })).close();`);
  expect(asked[0]).toMatch(/^BIND 1000000000000000[0-9a-f]{8}00000000$/);
});

describe('memory that may not be locked', () => {
  const limits = (bytes: number): string =>
    `Limit   Soft Limit  Hard Limit  Units\nMax locked memory   ${bytes}   ${bytes}   bytes\n`;

  testWithKernel.each(['group', 'iommufd'])(
    'is told before it is mapped, with what mends it: through its %s',
    (through) => {
      using kernel = new FakeKernel();
      kernel.system
        .write('proc/self/limits', limits(65536))
        .write('proc/self/status', 'CapEff:\t0000000000000000\n');
      const { said, asked } = kernel.run(`
      const device = await open({ through: '${through}', dma: { hugePages: 'never' } });
      await device.dma.allocate(65536);
      await failure(device.dma.allocate(4096));
      await device.close();`);
      expect(said).toEqual([
        {
          code: 'ERR_VFIO_USER_SYSTEM',
          message: expect.stringMatching(
            /cannot be mapped for 0000:01:00\.0: its pages are locked, and this process may lock 65536 bytes \(RLIMIT_MEMLOCK\), of which 69632 are needed here\. Raise it for the shell with `ulimit -l unlimited` as root, or with LimitMEMLOCK=infinity of a systemd unit/,
          ),
        },
      ]);
      expect(asked.filter((line) => line.startsWith('MAP '))).toHaveLength(1);
    },
  );

  testWithKernel.each([
    [limits(1 << 20), /may lock 1048576 bytes \(RLIMIT_MEMLOCK\), of which 4096 are needed here\. Raise it/],
    ['', /^VFIO_IOMMU_MAP_DMA of .*ENOMEM/],
  ])('is told when others have locked it already', (text, message) => {
    using kernel = new FakeKernel();
    kernel.system.write('proc/self/limits', text).write('proc/self/status', 'CapEff:\t0000000000000000\n');
    const { said } = kernel.run(
      `const device = await open({ through: 'group' });
       await failure(device.dma.allocate(4096));
       await device.close();`,
      { fail: 'MAP_DMA=12' },
    );
    expect(said).toEqual([{ code: 'ERR_VFIO_USER_SYSTEM', message: expect.stringMatching(message) }]);
  });
});
