// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { dist } from '../dist';
import { cleanEnd, runScript } from './run-script';

test('1000 rounds of opening and closing leave no descriptor and no mapping', () => {
  const outcome = runScript(`
    const round = () => {
      const all = openAll();
      all.near.send(new Uint8Array(1), 1, null, 0, [all.fd, all.fd]);
      all.far.receive(new Uint8Array(1), 0, 1);
      for (const owner of [all.near, all.far, all.event, all.listener, all.mapping]) owner.close();
      closeFd(all.fd);
    };
    round();
    await turn();
    const before = [openFds(), mappings()];
    for (let index = 0; index < 1000; index++) { round(); if (index % 100 === 0) await turn(); }
    await turn();
    console.log(openFds() - before[0], mappings() - before[1]);
  `);
  expect(outcome).toEqual(cleanEnd('0 0'));
});

test('failed calls leak nothing', () => {
  const outcome = runScript(`
    const attempt = (call) => { try { call(); } catch (error) { return error.code; } throw new Error('worked'); };
    const fd = createSharedMemory(4096);
    Mapping.map(fd, 0, 4096).close();
    const round = () => {
      attempt(() => Socket.connect('@vfio-user-nobody'));
      attempt(() => ListeningSocket.listen('/no/such/directory/cntrl'));
      attempt(() => Mapping.map(fd, 0, 8192));
      attempt(() => Mapping.map(fd, 4096, 1, { alignment: 0x200000 }));
      attempt(() => createSharedMemory(4096, { name: 'x'.repeat(250) }));
      attempt(() => EventFd.fromFd(fd));
      attempt(() => Socket.fromFd(fd));
    };
    const before = openFds();
    for (let index = 0; index < 100; index++) round();
    console.log(openFds() - before, mappings());
  `);
  expect(outcome).toEqual(cleanEnd('0 0'));
});

test('mappings that were forgotten are unmapped with their buffers', () => {
  const outcome = runScript(`
    const fd = createSharedMemory(4096);
    (() => { for (let index = 0; index < 50; index++) Mapping.map(fd, 0, 4096); })();
    console.log(mappings());
    for (let index = 0; index < 10; index++) { gc(); await turn(); }
    console.log(mappings());
    // Slots are used again, and a forgotten mapping does not disturb its successor.
    const again = Mapping.map(fd, 0, 4096);
    gc();
    await turn();
    new Uint8Array(again.buffer)[0] = 1;
    again.close();
    console.log(mappings());
  `);
  expect(outcome).toEqual(cleanEnd('50\n0\n0'));
});

test('a process that has no more descriptors learns that some were lost, and keeps none', () => {
  const outcome = runScript(`
    const [near, far] = Socket.pair();
    const fd = createSharedMemory(4096);
    near.send(new Uint8Array(1), 1, null, 0, new Array(10).fill(fd));
    const hoard = [];
    try { for (;;) hoard.push(native.duplicateFd(fd)); } catch (error) { console.log(error.errnoName); }
    for (let index = 0; index < 4; index++) closeFd(hoard.pop());
    console.log(far.receive(new Uint8Array(1), 0, 1), far.pendingFds, far.fdsTruncated);
    const taken = far.takeFds();
    console.log(taken.length, far.fdsTruncated);
    for (const one of [...taken, ...hoard]) closeFd(one);
  `);
  expect(outcome).toEqual(cleanEnd('EMFILE\n1 4 true\n4 false'));
});

test('descriptors that find no room in the array are closed', () => {
  const outcome = runScript(`
    const { addon } = require(${JSON.stringify(join(dist, 'native', 'addon'))});
    const [near, far] = Socket.pair();
    const fd = createSharedMemory(4096);
    const before = openFds();
    near.send(new Uint8Array(1), 1, null, 0, [fd, fd, fd]);
    const out = new Int32Array(3);
    console.log(addon().receive(far.fd, new Uint8Array(1), 0, 1, out, 0, 0), out[0], out[1], openFds() - before);
  `);
  expect(outcome).toEqual(cleanEnd('1 1 1 1'));
});
