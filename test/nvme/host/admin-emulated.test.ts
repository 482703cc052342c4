// SPDX-License-Identifier: MIT
/** The admin commands, as the emulated controller answers them. */
import { AdminOpcode, Feature, IdentifyCns, LogPage } from '../../../lib/nvme/spec';
import { failure } from '../../client/support';
import { NAMESPACE_BYTES, attached } from './support';

test('identifies itself and its namespace', async () => {
  const { nvme } = await attached({ serial: 'S1', blockSize: 4096 });
  const { admin } = nvme;
  expect(await admin.identifyController()).toEqual(nvme.identify);
  expect(await admin.identifyNamespace(1)).toEqual(nvme.namespace(1).identify);
  expect(nvme.namespace(1).identify).toMatchObject({ nsze: NAMESPACE_BYTES / 4096, nlbaf: 1 });
  expect(await admin.activeNamespaces()).toEqual([1]);
  expect(await admin.activeNamespaces(1)).toEqual([]);
  const { uuid, nguid } = await admin.namespaceDescriptors(1);
  expect(uuid?.replaceAll('-', '')).toBe(nguid);
  expect(nguid).toBe(nvme.namespace(1).identify.nguid);
  expect(await admin.identifyNvmController()).toMatchObject({ wzsl: 0, dmrl: 0 });
  expect((await admin.identify(IdentifyCns.commandSetActiveNamespaces))[0]).toBe(1);
  await expect(admin.identifyNamespace(33)).rejects.toMatchObject({ sct: 0, sc: 0x0b });
  await expect(admin.identify(IdentifyCns.commandSets)).rejects.toMatchObject({ sct: 0, sc: 2 });
});

test('has its log pages', async () => {
  const { nvme, device } = await attached();
  const { admin } = nvme;
  const memory = await device.dma.allocate(4096);
  await nvme.namespace(1).read(memory, { lba: 0, blocks: 8 });
  expect(await admin.smartLog()).toMatchObject({
    critical_warning: 0,
    host_read_commands: 1n,
    data_units_read: 1n,
    num_err_log_entries: 0n,
  });
  expect(await admin.errorLog()).toEqual([]);
  await expect(admin.command({ opcode: 0xc0, nsid: 3 })).rejects.toMatchObject({ sct: 0, sc: 1 });
  expect(await admin.errorLog()).toMatchObject([{ error_count: 1n, sqid: 0, status_field: 0x4001, nsid: 3 }]);
  const { activeSlot, revisions } = await admin.firmwareSlotLog();
  expect(revisions[activeSlot - 1]).toBe(nvme.identify.fr);
  const pages = await admin.supportedLogPages();
  expect(pages).toEqual([LogPage.supportedLogPages, LogPage.error, LogPage.smart, 3, 4, 5]);
  const { admin: commands } = await admin.commandEffectsLog();
  expect(commands.get(AdminOpcode.identify)).toMatchObject({ supported: true, execution: 0 });
  expect(commands.get(AdminOpcode.formatNvm)).toMatchObject({ execution: 1 });
  expect(commands.has(AdminOpcode.sanitize)).toBe(false);
  expect(await admin.changedNamespaces()).toEqual([]);
});

test('keeps features', async () => {
  const { nvme } = await attached({ queuePairs: 4 });
  const { admin } = nvme;
  const limit = await admin.getFeature('temperatureThreshold');
  expect(limit).toEqual({ threshold: nvme.identify.wctemp, sensor: 0, type: 0 });
  await admin.setFeature('temperatureThreshold', { threshold: 340 });
  expect(await admin.getFeature(Feature.temperatureThreshold)).toBe(340);
  expect(await admin.getFeature('temperatureThreshold', { select: 'default' })).toEqual(limit);
  expect(await admin.featureCapabilities('temperatureThreshold')).toEqual({
    saveable: false,
    namespaceSpecific: false,
    changeable: true,
  });
  const vector = { argument: { vector: 2 } };
  expect(await admin.getFeature('interruptVectorConfiguration', vector)).toMatchObject({ vector: 2 });
  expect(await admin.setFeature('numberOfQueues', { submission: 9, completion: 2 })).toBe(0x0001_0003);
  await expect(admin.setFeature('arbitration', { burst: 1 }, { save: true })).rejects.toMatchObject({
    sct: 1,
    sc: 0x0d,
  });
  await admin.setFeature('keepAliveTimer', { timeout: 60_000 });
  await admin.keepAlive();
});

test('tells events, and takes back requests for them', async () => {
  const { nvme } = await attached();
  const { admin } = nvme;
  await admin.setFeature('asyncEventConfiguration', { criticalWarnings: 2 });
  const event = admin.asynchronousEvent();
  await admin.setFeature('temperatureThreshold', { threshold: 200 });
  expect(await event).toEqual({ type: 1, info: 1, logPage: LogPage.smart });
  expect(await admin.smartLog()).toMatchObject({ critical_warning: 2 });
  const controller = new AbortController();
  const other = expect(admin.asynchronousEvent({ signal: controller.signal })).rejects.toMatchObject({
    sct: 0,
    sc: 7,
  });
  controller.abort();
  await other;
  expect(await admin.abort(0, 0x1234)).toBe(false);
});

test('an error status, whose memory is used again', async () => {
  const { nvme } = await attached({}, { arenaSize: 64 << 10 });
  for (let round = 0; round < 40; round++) {
    await expect(nvme.admin.identify(0xee)).rejects.toMatchObject({ operation: 'Identify' });
  }
});

test('many at once', async () => {
  const { nvme } = await attached({}, { adminEntries: 4 });
  const all = await Promise.all(Array.from({ length: 50 }, () => nvme.admin.identifyController()));
  expect(new Set(all.map(({ sn }) => sn)).size).toBe(1);
});

test('one that is never completed', async () => {
  const { nvme } = await attached();
  await expect(nvme.admin.asynchronousEvent({ timeout: 20 })).rejects.toMatchObject(
    failure('ERR_VFIO_USER_TIMEOUT', 'within 20 ms'),
  );
});

test('what is outstanding fails when the controller is closed, and what comes later', async () => {
  const { nvme } = await attached();
  const event = expect(nvme.admin.asynchronousEvent()).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_CLOSED',
  });
  await nvme.close();
  await event;
  await expect(nvme.admin.keepAlive()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
});

test('the device that is closed under its controller', async () => {
  const { device, nvme } = await attached();
  await device.close();
  await expect(nvme.admin.keepAlive()).rejects.toMatchObject(
    failure('ERR_VFIO_USER_CLOSED', 'closed under its NVMe controller'),
  );
  await nvme.close();
});
