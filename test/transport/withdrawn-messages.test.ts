// SPDX-License-Identifier: MIT
import { HeaderFlag } from '../../lib/protocol/constants';
import { Outgoing, type Departure } from '../../lib/transport/outgoing';
import { Requests } from '../../lib/transport/requests';

const WRITE = 12;
const BULK = new Uint8Array(1 << 20);
const EMPTY = new Uint8Array(0);

/** A peer that takes nothing until told to. */
let taken: number[];
let takes: boolean;
let outgoing: Outgoing;
beforeEach(() => {
  taken = [];
  takes = false;
  outgoing = new Outgoing(
    {
      send: (head, headLength, body, bodyOffset) => {
        if (!takes) return 0;
        const length = headLength + (body?.length ?? 0) - bodyOffset;
        // The first byte of the payload, behind the header of 16 bytes.
        if (body !== null && bodyOffset === 0) taken.push((headLength > 0 ? head : body)[16] as number);
        return length;
      },
    },
    { name: 'the peer', watchWritable: () => undefined, failed: () => undefined },
  );
});

test('requests that ran out of time while they waited are not kept, and do not leave', () => {
  const requests = new Requests('the peer', outgoing, Infinity, 0);
  let failed = 0;
  const submit = (tag: number, timeout: number): number =>
    requests.submit(
      { command: WRITE, payload: Uint8Array.of(tag), data: BULK, timeout },
      { resolve: () => undefined, reject: () => failed++ },
    );
  for (let tag = 0; tag < 5; tag++) submit(tag, Infinity);
  expect(outgoing.full).toBe(true);
  for (let tag = 5; tag < 100; tag++) submit(tag, tag % 10 === 0 ? Infinity : 1);
  requests.expire(performance.now() + 1000);
  expect(failed).toBe(86);
  takes = true;
  outgoing.flush();
  expect(taken).toEqual([0, 1, 2, 3, 4, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
  // The ids of what never left are free.
  expect(requests.size).toBe(14);
  requests.close(() => new Error('closed'));
});

test('what is withdrawn is forgotten while the peer takes nothing', () => {
  const departures: Departure[] = [];
  const message = { id: 1, command: WRITE, flags: HeaderFlag.command, errno: 0, payload: EMPTY, data: BULK };
  for (let count = 0; count < 5; count++) outgoing.send(message);
  for (let count = 0; count < 100; count++) {
    const departure: Departure = { departed: false, waiting: null };
    outgoing.send(message, departure);
    departures.push(departure);
  }
  expect(departures.every(({ waiting }) => waiting?.data === BULK)).toBe(true);
  for (const departure of departures) outgoing.withdraw(departure);
  expect(departures.some(({ departed, waiting }) => departed || waiting !== null)).toBe(false);
  takes = true;
  outgoing.flush();
  expect([outgoing.sent, outgoing.backlogged]).toEqual([5, false]);
});
