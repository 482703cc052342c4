// SPDX-License-Identifier: MIT
/** The device that QEMU has too, by our model. Set QEMU_BINARY as for qemu.test.ts. */
import { serve, type Server } from '../../lib/server';
import { until } from '../client/support';
import { Scratch } from '../cli/run-cli';
import { EduDevice } from '../server/edu-device';
import { Memory, QemuMachine, STOPPED, describeWith, whyNoQemu } from '../support/qemu-machine';
import { Qtest } from './qtest';

describeWith(whyNoQemu(), "QEMU's edu device", () => {
  const BAR = 0xe000_0000;
  const Register = { causes: BAR + 0x24, raise: BAR + 0x60, acknowledge: BAR + 0x64 };
  let scratch: Scratch;
  let server: Server | undefined;
  let machine: QemuMachine | undefined;
  let qtest: Qtest | undefined;

  beforeEach(() => {
    scratch = new Scratch();
  });
  afterEach(async () => {
    qtest?.close();
    await machine?.kill();
    await server?.close();
    qtest = machine = server = undefined;
    scratch.remove();
  });

  test('is a level: of three causes, one acknowledged at each interrupt, none is lost and none storms', async () => {
    const [socket, control] = [scratch.file('socket'), scratch.file('qtest')];
    server = await serve(socket, new EduDevice({ msi: false }));
    machine = await QemuMachine.start(socket, Memory.shared, STOPPED, ...Qtest.options(control));
    qtest = await Qtest.connect(control);
    await machine.writeConfig(0x10, BAR);
    await machine.writeConfig(0x04, 0x2);
    const causes: number[] = [];
    await qtest.write32(Register.raise, 0b111);
    // An interrupt handler of a guest: QEMU lowers the line at each access, and our server raises it while a cause is left.
    for (let left = 0b111; left !== 0;) {
      const { high } = qtest;
      await until(() => high.size === 1, 'the line is high');
      left = await qtest.read32(Register.causes);
      const cause = left & -left;
      if (cause !== 0) causes.push(cause);
      await qtest.write32(Register.acknowledge, cause);
      left &= ~cause;
    }
    expect(causes).toEqual([1, 2, 4]);
    const { raised } = qtest;
    expect(raised).toBeLessThan(8);
    // A signal may still be on its way; nothing follows it.
    await until(async () => {
      expect(await qtest?.read32(Register.causes)).toBe(0);
      return qtest?.high.size === 0;
    }, 'the line is low');
  });
});
