// SPDX-License-Identifier: MIT
import { closeFd, createSharedMemory, fileSize } from '../../lib/native';
import { READ, WRITE, message, turns, until, useConnection } from './support';

const t = useConnection();
const failing = (code: string): object => ({ code });

describe('a peer that does not read', () => {
  const data = new Uint8Array(1 << 20).fill(7);

  test('requests wait for their turn, keep their order and their deadlines', async () => {
    t.open();
    const order: number[] = [];
    // The fixed part may be reused at once, also of those that wait.
    const payload = new Uint8Array(1);
    const all = [...Array(10).keys()].map((tag) => {
      payload[0] = tag;
      return t.connection.request({ command: READ, payload, data }).then(() => order.push(tag));
    });
    payload[0] = 77;
    expect(t.connection.queuedBytes).toBeLessThan(6 << 20);
    const impatient = t.read(99, { timeout: 20 });
    const reason = new Error('no more');
    const controller = new AbortController();
    const aborted = t.read(98, {}, controller.signal);
    expect(t.connection.post(WRITE, Uint8Array.of(100))).toBe(false);
    controller.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    await expect(impatient).rejects.toMatchObject(failing('ERR_VFIO_USER_TIMEOUT'));
    let drained = false;
    void t.connection.drained().then(() => {
      drained = true;
    });
    await turns();
    expect(drained).toBe(false);

    const received: number[] = [];
    const buffer = new Uint8Array(1 << 20);
    let rest = 0;
    let head = Buffer.alloc(0);
    while (received.length < 11) {
      const count = t.peer.socket.receive(
        buffer,
        0,
        rest > 0 ? Math.min(rest, buffer.length) : 17 - head.length,
      );
      if (count <= 0) {
        await turns(1);
        continue;
      }
      if (rest > 0) {
        rest -= count;
        continue;
      }
      head = Buffer.concat([head, buffer.subarray(0, count)]);
      if (head.length < 17) continue;
      received.push(head[16] ?? -1);
      rest = head.readUInt32LE(4) - 17;
      if (head.readUInt16LE(2) === READ) t.peer.reply({ id: head.readUInt16LE(0), command: READ });
      head = Buffer.alloc(0);
    }
    await Promise.all(all);
    // What was given up while it waited never left.
    expect(received).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100]);
    expect(order).toEqual([...Array(10).keys()]);
    expect(drained).toBe(true);
  });

  test('reading pauses while too many replies wait', async () => {
    t.open({ onCommand: () => ({ payload: new Uint8Array(0), data }) });
    const command = message(READ);
    for (let i = 0; i < 100; i++) t.peer.send(command);
    await turns();
    expect(t.connection.statistics.messagesReceived).toBeLessThan(10);
    expect(t.connection.queuedBytes).toBeLessThan(6 << 20);
    let bytes = 0;
    await until(() => (bytes += t.peer.drain()) === 100 * (16 + data.length));
    expect(t.connection.statistics.messagesReceived).toBe(100);
  });

  test('queued descriptors survive their closing by the caller', async () => {
    t.open();
    const fd = createSharedMemory(12288);
    t.connection.post(WRITE, new Uint8Array(0), data);
    expect(t.connection.queuedBytes).toBeGreaterThan(0);
    const result = t.read(1, { fds: [fd] });
    closeFd(fd);
    let bytes = 0;
    await until(() => (bytes += t.peer.drain()) === data.length + 16 + 17);
    const fds = t.peer.socket.takeFds();
    expect(fds.map(fileSize)).toEqual([12288]);
    fds.forEach(closeFd);
    t.connection.close();
    await expect(result).rejects.toMatchObject(failing('ERR_VFIO_USER_CLOSED'));
  });

  test('queued descriptors are closed with the connection', () => {
    t.open();
    const fd = createSharedMemory(12288);
    t.connection.post(WRITE, new Uint8Array(0), data);
    t.read(1, { fds: [fd, fd] }).catch(() => undefined);
    closeFd(fd);
    t.connection.close();
  });

  test('the synchronous form keeps its deadline', () => {
    const messageTimeout = 60_000;
    t.open({ messageTimeout });
    for (let i = 0; i < 6; i++) t.connection.post(WRITE, new Uint8Array(0), data);
    const start = performance.now();
    expect(() =>
      t.connection.requestSync({ command: READ, payload: new Uint8Array(0), timeout: 50 }),
    ).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }) as Error);
    const elapsed = performance.now() - start;
    expect(elapsed).toBeGreaterThanOrEqual(49);
    expect(elapsed).toBeLessThan(messageTimeout);
  });
});
