// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { closeFd, createSharedMemory } from '../../lib/native';
import { CommandError, type CommandReply, type Connection } from '../../lib/transport';
import { connected, gate, message, openFds, turns, until, warmUp, type Peer } from './support';

/** Commands that have lanes of their own, one whose lane is shared, one that is exclusive in that lane, and a barrier. */
const [A, B, C, READ, WRITE, BARRIER] = [1, 2, 3, 20, 21, 99] as const;
const POSTED = 0x10;

let connection: Connection;
let peer: Peer;
let fdsBefore: number;
/** Ids of the commands as they were started, and of those that are at work. */
let started: number[];
let atWork: Map<number, (outcome?: CommandReply | Error) => void>;

beforeAll(warmUp);
beforeEach(() => {
  fdsBefore = openFds();
  started = [];
  atWork = new Map();
  // The first byte of a payload names the command; with a second it is served at once.
  ({ connection, peer } = connected({
    lane: (command) => {
      if (command === BARRIER) return null;
      return command === READ || command === WRITE
        ? { key: 'readers', shared: command === READ }
        : { key: command, shared: false };
    },
    onCommand: ({ payload }) => {
      const [tag = 0, now] = payload;
      started.push(tag);
      if (now !== undefined) return { payload };
      return new Promise((resolve, reject) => {
        atWork.set(tag, (outcome) => {
          atWork.delete(tag);
          if (outcome instanceof Error) reject(outcome);
          else resolve(outcome ?? { payload });
        });
      });
    },
  }));
});
afterEach(() => {
  connection.close();
  peer.socket.close();
  expect(openFds()).toBe(fdsBefore);
});

/** Sends commands whose ids are 1, 2, …, and waits until all have arrived. */
async function send(
  ...commands: (number | { command: number; flags?: number; now?: boolean })[]
): Promise<void> {
  const before = connection.statistics.messagesReceived;
  commands.forEach((one, index) => {
    const { command, flags = 0, now = false } = typeof one === 'number' ? { command: one } : one;
    const id = before + index + 1;
    peer.send(message(command, Uint8Array.from(now ? [id, 1] : [id]), { id, flags }));
  });
  await until(() => connection.statistics.messagesReceived === before + commands.length);
}

async function finish(tag: number, outcome?: CommandReply | Error): Promise<void> {
  const end = atWork.get(tag);
  expect(end).toBeDefined();
  end?.(outcome);
  await turns(2);
}

describe('commands of a peer that pipelines', () => {
  test('overlap in different lanes, and are answered as they are done', async () => {
    await send(A, B, C);
    expect(started).toEqual([1, 2, 3]);
    await finish(3);
    await finish(1);
    expect([peer.take(), peer.take()]).toEqual([
      { id: 3, command: C, flags: 1, payload: [3] },
      { id: 1, command: A, flags: 1, payload: [1] },
    ]);
    await finish(2);
    expect(peer.take().id).toBe(2);
  });

  test('are started in their order: one that waits for its lane holds back what comes later', async () => {
    await send(A, B, A, C);
    expect(started).toEqual([1, 2]);
    await finish(2);
    expect(started).toEqual([1, 2]);
    await finish(1);
    expect(started).toEqual([1, 2, 3, 4]);
  });

  test('that are served at once do so while others are at work', async () => {
    await send(A, { command: B, now: true }, { command: C, now: true });
    expect([peer.take().id, peer.take().id]).toEqual([2, 3]);
    await send({ command: A, now: true }, { command: B, now: true });
    expect(started).toEqual([1, 2, 3]);
    await finish(1);
    expect([peer.take().id, peer.take().id, peer.take().id]).toEqual([1, 4, 5]);
  });

  test('share a lane that allows it, exclusive ones do not', async () => {
    await send(READ, READ, WRITE, READ, READ, WRITE);
    expect(started).toEqual([1, 2]);
    await finish(2);
    expect(started).toEqual([1, 2]);
    await finish(1);
    expect(started).toEqual([1, 2, 3]);
    await finish(3);
    expect(started).toEqual([1, 2, 3, 4, 5]);
    await finish(4);
    await finish(5);
    expect(started).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('wait for a barrier, which waits for all before', async () => {
    await send(A, B, BARRIER, C, { command: READ, now: true });
    expect(started).toEqual([1, 2]);
    await finish(1);
    expect(started).toEqual([1, 2]);
    await finish(2);
    expect(started).toEqual([1, 2, 3]);
    await turns();
    expect(started).toEqual([1, 2, 3]);
    await finish(3);
    expect(started).toEqual([1, 2, 3, 4, 5]);
  });

  // vfio-user, "Command Concurrency": the older command will have been processed before the younger's reply is sent.
  test('do not overtake a posted one, which itself waits for its lane only', async () => {
    await send(A, { command: B, flags: POSTED }, { command: C, now: true }, READ);
    expect(started).toEqual([1, 2]);
    await finish(1);
    expect(peer.take().id).toBe(1);
    expect(started).toEqual([1, 2]);
    expect(peer.drain()).toBe(0);
    await finish(2);
    expect(started).toEqual([1, 2, 3, 4]);
    expect(peer.take().id).toBe(3);
  });

  test('go on when a handler rejects, also a posted one or a barrier', async () => {
    await send(A, B, A, { command: C, flags: POSTED }, BARRIER, READ);
    await finish(2, new CommandError(28, 'full'));
    expect(peer.take()).toMatchObject({ id: 2, flags: 0x21 });
    await finish(1, new TypeError('a defect'));
    expect(peer.take()).toMatchObject({ id: 1, flags: 0x21 });
    await finish(3);
    await finish(4, new Error('nobody hears of it'));
    expect(peer.take().id).toBe(3);
    await finish(5, new CommandError(28, 'full'));
    expect(peer.take().id).toBe(5);
    expect(started).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('that are at work when the connection ends finish without a reply; what waits is dropped', async () => {
    const fd = createSharedMemory(4096);
    peer.send(message(A, Uint8Array.of(1), { id: 1 }), [fd]);
    peer.send(message(B, Uint8Array.of(2), { id: 2 }), [fd]);
    peer.send(message(BARRIER, Uint8Array.of(3), { id: 3 }), [fd]);
    peer.send(message(C, Uint8Array.of(4), { id: 4 }), [fd, fd]);
    closeFd(fd);
    await until(() => connection.statistics.messagesReceived === 4);
    connection.close();
    await finish(2);
    await finish(1, new Error('too late'));
    expect(started).toEqual([1, 2]);
    expect(peer.drain()).toBe(0);
  });
});

describe('what a peer can make us keep', () => {
  test('64 commands at work', async () => {
    await send(...new Array<number>(70).fill(READ));
    expect(started.length).toBe(64);
    await finish(10);
    expect(started.length).toBe(65);
  });

  test('descriptors of those at work are bounded together with those that wait', async () => {
    const fd = createSharedMemory(4096);
    for (let id = 1; id < 10 && !connection.closed; id++) {
      peer.send(message(READ, Uint8Array.of(id), { id }), new Array<number>(250).fill(fd));
      await until(() => connection.closed || connection.statistics.messagesReceived === id);
    }
    closeFd(fd);
    expect(connection.error).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    // Descriptors of a command at work are its handler's until it is done.
    for (const tag of [...atWork.keys()]) await finish(tag);
  });

  test('replies: what waited is not answered all at once when the peer does not read', async () => {
    const data = new Uint8Array(1 << 20);
    const slow = gate();
    const first = slow.opened.then(() => undefined);
    connection.close();
    peer.socket.close();
    ({ connection, peer } = connected({
      onCommand: ({ command, payload }) => (command === A ? first : { payload, data }),
    }));
    await send(A, ...new Array<number>(40).fill(B));
    slow.open();
    await turns();
    expect(connection.queuedBytes).toBeGreaterThan(4 << 20);
    expect(connection.queuedBytes).toBeLessThan(6 << 20);
    const all = 16 + 40 * (16 + 1 + data.length);
    let bytes = 0;
    await until(() => (bytes += peer.drain()) === all);
  });
});

test('any commands, done in any order, keep the rules', async () => {
  const anyCommand = fc.record({
    command: fc.constantFrom(A, B, C, READ, READ, WRITE, BARRIER),
    flags: fc.constantFrom(0, 0, 0, POSTED),
    now: fc.boolean(),
  });
  const laneOf = (command: number): number => (command === READ ? WRITE : command);
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyCommand, { minLength: 1, maxLength: 20 }),
      fc.infiniteStream(fc.nat({ max: 1000 })),
      async (commands, choices) => {
        const base = connection.statistics.messagesReceived;
        started.length = 0;
        // Tags are bytes: each run starts again at 1.
        const sent = commands.map(({ command, flags, now }, index) => {
          peer.send(
            message(command, Uint8Array.from(now ? [index + 1, 1] : [index + 1]), { id: index + 1, flags }),
          );
          return { command, flags };
        });
        await until(() => connection.statistics.messagesReceived === base + commands.length);
        for (;;) {
          const working = [...atWork.keys()].map((tag) => ({ tag, ...sent[tag - 1] }));
          for (const one of working) {
            const others = working.filter(({ tag }) => tag !== one.tag);
            const clash = others.filter(
              ({ command = 0 }) =>
                one.command === BARRIER ||
                (laneOf(command) === laneOf(one.command ?? 0) && (command !== READ || one.command !== READ)),
            );
            expect(clash).toEqual([]);
            if (one.flags === POSTED) expect(Math.max(...started)).toBe(one.tag);
          }
          const chosen = working[(choices.next().value as number) % working.length];
          if (chosen === undefined) break;
          await finish(chosen.tag);
        }
        expect(started).toEqual(commands.map((_, index) => index + 1));
        const expected = sent.flatMap(({ flags }, index) => (flags === 0 ? [index + 1] : []));
        expect(expected.map(() => peer.take().id).sort((a, b) => a - b)).toEqual(expected);
        expect(peer.drain()).toBe(0);
      },
    ),
    { numRuns: 80 },
  );
});
