// SPDX-License-Identifier: MIT
import { cleanEnd, runScript } from './run-script';

const prelude = `
  const { connect } = load('client');
  const { serve } = load('server');
  const path = '@vfio-user-reconnect-' + process.pid;
  const model = { name: 'test', pci: { vendorId: 1, deviceId: 2, classCode: 0 } };
  const event = (device, name) => new Promise((resolve) => device.once(name, (...args) => resolve(args)));
`;

test('waiting for a server keeps the process alive, up to the deadline', () => {
  const outcome = runScript(`${prelude}
    const server = await serve(path, model);
    const device = await connect(path, { reconnect: { deadline: 200 } });
    device.on('close', (error) => console.log(error.code));
    await server.close();
  `);
  expect(outcome).toEqual(cleanEnd('ERR_VFIO_USER_DISCONNECTED'));
});

test('a device that was closed while it waited does not', () => {
  const outcome = runScript(`${prelude}
    const server = await serve(path, model);
    const device = await connect(path, { reconnect: { deadline: 1e9, firstDelay: 1e6, longestDelay: 1e6 } });
    const gone = event(device, 'disconnect');
    await server.close();
    await gone;
    await device.close();
    console.log('closed');
  `);
  expect(outcome).toEqual(cleanEnd('closed'));
});

test('an exception of a listener is an uncaught exception, and does not stop the way back', () => {
  const outcome = runScript(`${prelude}
    process.on('uncaughtException', (error) => { console.log('caught', error.message); });
    const server = await serve(path, model);
    const device = await connect(path, { reconnect: { firstDelay: 20 } });
    const back = event(device, 'reconnect');
    for (const name of ['disconnect', 'reconnecting', 'reconnect', 'close']) device.once(name, () => { throw new Error(name); });
    await server.close();
    const again = await serve(path, model);
    await back;
    await device.close();
    await again.close();
  `);
  expect(outcome).toEqual(cleanEnd('caught disconnect\ncaught reconnecting\ncaught reconnect\ncaught close'));
});
