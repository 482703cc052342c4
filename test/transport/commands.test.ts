// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../lib/errors';
import { closeFd, createSharedMemory } from '../../lib/native';
import { CommandError, type CommandReply, type IncomingCommand } from '../../lib/transport';
import { READ, WRITE, gate, message, turns, until, useConnection } from './support';

const t = useConnection();
const failing = (code: string): object => ({ code });

describe('commands of the peer', () => {
  const echo = ({ payload }: IncomingCommand): CommandReply => ({ payload });

  test('are answered, with an errno when refused, and not at all when posted', () => {
    const posts: number[] = [];
    t.open({
      onCommand: ({ command, payload, posted }) => {
        if (posted) posts.push(command);
        if (command === 1) return echo({ payload } as IncomingCommand);
        if (command === 2) throw new CommandError(28, 'full');
        if (command === 3) throw new TypeError('a defect');
        if (command === 4) throw new VfioUserError('ERR_VFIO_USER_PROTOCOL', 'does not decode');
        return undefined;
      },
    });
    for (const [command, flags] of [
      [1, 0],
      [5, 0x10],
      [2, 0],
      [3, 0],
      [2, 0x10],
      [4, 0],
    ] as const)
      t.peer.send(message(command, Uint8Array.of(7), { id: command, flags }));
    expect(() =>
      t.connection.requestSync({ command: READ, payload: new Uint8Array(0), timeout: 20 }),
    ).toThrow('within');
    const head = Buffer.alloc(16);
    const errnos = [];
    expect(t.peer.take().command).toBe(READ);
    expect(t.peer.take()).toEqual({ id: 1, command: 1, flags: 1, payload: [7] });
    for (let i = 0; i < 3; i++) {
      expect(t.peer.socket.receive(head, 0, 16, 0, 1000)).toBe(16);
      errnos.push([head.readUInt16LE(2), head.readUInt32LE(8), head.readUInt32LE(12)]);
    }
    expect(errnos).toEqual([
      [2, 0x21, 28],
      [3, 0x21, 5],
      [4, 0x21, 22],
    ]);
    expect(t.peer.drain()).toBe(0);
    expect(posts).toEqual([5, 2]);
  });

  test('wait for a slow one, in order', async () => {
    const order: number[] = [];
    const slow = gate();
    t.open({
      onCommand: async ({ command }) => {
        order.push(command);
        if (command === 1) await slow.opened;
        order.push(-command);
        return undefined;
      },
    });
    for (const command of [1, 2, 3]) t.peer.send(message(command, undefined, { id: command }));
    await until(() => t.connection.statistics.messagesReceived === 3);
    await turns();
    expect(order).toEqual([1]);
    slow.open();
    await until(() => order.length === 6);
    expect(order).toEqual([1, -1, 2, -2, 3, -3]);
    expect([t.peer.take().id, t.peer.take().id, t.peer.take().id]).toEqual([1, 2, 3]);
  });

  test('may ask the peer something before they answer', async () => {
    t.open({ onCommand: async () => ({ payload: (await t.read(9)).payload }) });
    t.peer.send(message(WRITE, undefined, { id: 5 }));
    await until(() => t.connection.inFlight === 1);
    const question = t.peer.take();
    expect(question).toMatchObject({ command: READ, flags: 0, payload: [9] });
    t.peer.reply(question, Uint8Array.of(42));
    await until(() => t.connection.inFlight === 0);
    expect(t.peer.take()).toEqual({ id: 5, command: WRITE, flags: 1, payload: [42] });
  });

  test('are dropped with their descriptors when the connection ends behind a slow one', async () => {
    const fd = createSharedMemory(4096);
    const slow = gate();
    t.open({ onCommand: () => slow.opened.then(() => undefined) });
    for (let i = 0; i < 5; i++) t.peer.send(message(1), [fd, fd]);
    closeFd(fd);
    await until(() => t.connection.statistics.messagesReceived === 5);
    t.connection.close();
    slow.open();
    await turns();
    expect(t.connection.statistics.messagesSent).toBe(0);
  });

  test('descriptors of those that wait are bounded', async () => {
    const fd = createSharedMemory(4096);
    t.open({ onCommand: () => new Promise<undefined>(() => undefined) });
    t.peer.send(message(1));
    await until(() => t.connection.statistics.messagesReceived === 1);
    // One at a time: the kernel bounds the descriptors that are under way.
    for (let i = 0; i < 6 && !t.connection.closed; i++) {
      t.peer.send(message(2), new Array<number>(250).fill(fd));
      await until(() => t.connection.closed || t.connection.statistics.messagesReceived === i + 2);
    }
    closeFd(fd);
    expect(t.connection.error).toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    expect(t.connection.error?.message).toContain(
      `${t.connection.name} broke the protocol: the peer sent too much`,
    );
  });

  test('bytes of those that wait are bounded', async () => {
    t.open({ onCommand: () => new Promise<undefined>(() => undefined) });
    const bytes = message(2, new Uint8Array(1 << 20));
    for (let sent = 0; !t.connection.closed;) {
      // The end of one, or the next.
      const at = sent % bytes.length;
      const count = t.peer.socket.send(bytes, 0, bytes, at, null);
      sent += count;
      if (count === 0) await turns(1);
      expect(sent).toBeLessThan(70 << 20);
    }
    expect(t.connection.error).toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    expect(t.connection.statistics.messagesReceived).toBeGreaterThan(60);
  });
});
