// SPDX-License-Identifier: MIT
/** What a hostile client does to a server, step by step. */
import { NvmOpcode } from '../lib/nvme/spec';
import {
  Code,
  EventFd,
  HostileClient,
  closeFd,
  createSharedMemory,
  dmaMap,
  message,
  pause,
  regionRead,
  regionWrite,
  setIrqs,
  u16,
  u32,
  unmapAll,
} from './hostile-client';
import { HostileHost, QUEUES } from './hostile-host';
import type { ServedKind } from './hostile-server';

/** Gives the name of each step before it is done. */
export interface Attack {
  readonly served: ServedKind;
  steps(path: string): Generator<string, void>;
}

const PAGE = 4096;
const MIB = 1 << 20;
/** The most that vfio-user knows by default (vfio-user, "Capabilities"). */
const RANGES = 65535;
/** Milliseconds that the server is given when nothing can be seen from outside. */
const WHILE = 3000;
/** Descriptors that a message brings, as many as the server announces. */
const FDS = 16;
const REQ = 4;
const VECTORS = 4096;
/** DATA_EVENTFD and ACTION_TRIGGER of `struct vfio_irq_set`; DATA_NONE and ACTION_TRIGGER. */
const SET_EVENTFDS = 4 | 32;
const DISABLE = 1 | 32;
const BAR2 = 2;

/** Connects again, which succeeds once the server has done away with what the client before had. */
function comeBack(path: string): void {
  HostileClient.connect(path).close();
}

const ranges: Attack = {
  served: 'nvme',
  *steps(path) {
    const client = HostileClient.connect(path);
    new HostileHost(client);
    const fd = createSharedMemory(PAGE);
    const mapAll = (): void => {
      let refused = 0;
      for (let at = 0; at < RANGES; at++)
        if (client.ask(Code.dmaMap, dmaMap(2 ** 40 + at * 2 * PAGE, PAGE), [fd]).errno !== 0) refused++;
      console.error(`${RANGES} ranges, ${refused} of which are refused`);
    };
    yield `${RANGES} DMA_MAPs of a page with a descriptor`;
    mapAll();
    yield 'DMA_UNMAP of all of them';
    client.ask(Code.dmaUnmap, unmapAll());
    yield 'the same ranges again, and the client goes away';
    mapAll();
    client.close();
    comeBack(path);
    closeFd(fd);
  },
};

function transfers(what: 'read' | 'write'): Attack {
  return {
    served: 'nvme',
    *steps(path) {
      const client = HostileClient.connect(path);
      const host = new HostileHost(client);
      yield `${QUEUES} queues full of ${what}s of 128 KiB by message, none of which is served`;
      host.fill(NvmOpcode[what], true);
      pause(WHILE);
      if (what === 'read') {
        yield 'the client serves them for a while';
        const end = performance.now() + WHILE;
        while (performance.now() < end) client.serve();
      }
      yield 'the client goes away';
      client.close();
      comeBack(path);
    },
  };
}

const mapped: Attack = {
  served: 'nvme',
  *steps(path) {
    const client = HostileClient.connect(path);
    const host = new HostileHost(client);
    yield `${QUEUES} queues full of reads of 128 KiB in mapped memory`;
    host.fill(NvmOpcode.read, false);
    while (host.completed < host.commands) pause(10);
    client.close();
  },
};

const vectors: Attack = {
  served: 'stuck device',
  *steps(path) {
    const client = HostileClient.connect(path);
    const event = EventFd.create();
    const setAll = (): void => {
      for (let start = 0; start < VECTORS; start += FDS)
        client.ask(
          Code.setIrqs,
          setIrqs(SET_EVENTFDS, REQ, start, FDS),
          new Array<number>(FDS).fill(event.fd),
        );
    };
    yield `${VECTORS} vectors with an eventfd each`;
    setAll();
    yield 'DEVICE_SET_IRQS that disables all of them';
    client.ask(Code.setIrqs, setIrqs(DISABLE, REQ, 0, 0));
    setAll();
    yield 'the client goes away with its vectors';
    client.close();
    comeBack(path);
    event.close();
  },
};

const waiting: Attack = {
  served: 'stuck device',
  *steps(path) {
    const client = HostileClient.connect(path);
    const event = EventFd.create();
    yield 'commands with descriptors behind one that never ends';
    client.send(Code.deviceReset, Buffer.alloc(0));
    const fds = new Array<number>(FDS).fill(event.fd);
    while (client.send(Code.setIrqs, setIrqs(SET_EVENTFDS, REQ, 0, FDS), fds, { patience: 1000 }));
    client.close();
    event.close();
  },
};

const waitingBytes: Attack = {
  served: 'stuck device',
  *steps(path) {
    const client = HostileClient.connect(path);
    yield 'commands of 1 MiB behind one that never ends';
    client.send(Code.regionWrite, regionWrite(0, 0, u32(1)));
    const command = regionWrite(0, 0, Buffer.alloc(MIB));
    while (client.send(Code.regionWrite, command, [], { patience: 1000 }));
    client.close();
  },
};

const posted: Attack = {
  served: 'stuck device',
  *steps(path) {
    const client = HostileClient.connect(path);
    yield '1,000,000 posted writes';
    const one = message(Code.regionWrite, regionWrite(BAR2, 0, u32(1)), 0x10);
    const many = Buffer.concat(new Array<Buffer>(10_000).fill(one));
    for (let sent = 0; sent < 100; sent++) client.sendBytes(many);
    client.ask(Code.regionRead, regionRead(BAR2, 0, 4));
    client.close();
  },
};

const unread: Attack = {
  served: 'stuck device',
  *steps(path) {
    const client = HostileClient.connect(path);
    yield 'REGION_READs of 1 MiB whose replies are not read';
    const one = message(Code.regionRead, regionRead(BAR2, 0, MIB));
    const many = Buffer.concat(new Array<Buffer>(10_000).fill(one));
    while (client.sendBytes(many, [], 1000));
    client.close();
  },
};

const half: Attack = {
  served: 'stuck device',
  *steps(path) {
    const client = HostileClient.connect(path);
    yield 'a message of 1 MiB that is sent but for its last byte, with descriptors';
    const fd = createSharedMemory(PAGE);
    const whole = message(Code.regionWrite, regionWrite(BAR2, 0, Buffer.alloc(MIB)));
    client.sendBytes(whole.subarray(0, -1), new Array<number>(FDS).fill(fd));
    pause(1000);
    client.close();
    yield 'a header that tells of 4 GiB';
    const other = HostileClient.connect(path);
    other.sendBytes(message(Code.regionWrite, Buffer.alloc(0), 0, 1, 0xffff_ffff));
    other.receive();
    other.close();
    comeBack(path);
    closeFd(fd);
  },
};

const json: Attack = {
  served: 'stuck device',
  *steps(path) {
    const texts = {
      'VERSION with 16 KiB of nested JSON, 200 times': '['.repeat(8000) + ']'.repeat(8000),
      'VERSION with 16 KiB of keys, 200 times': `{${Array.from({ length: 1500 }, (_, i) => `"k${i}":1`).join()}}`,
      'VERSION with 1 MiB of JSON, 200 times': `{"a":"${'x'.repeat(MIB)}"}`,
    };
    for (const [name, text] of Object.entries(texts)) {
      yield name;
      for (let round = 0; round < 200; round++) {
        const client = HostileClient.connect(path, false);
        client.send(Code.version, Buffer.concat([u16(0, 1), Buffer.from(`${text}\0`)]));
        client.receive();
        client.close();
      }
      comeBack(path);
    }
  },
};

export const ATTACKS: Readonly<Record<string, Attack>> = {
  ranges,
  reads: transfers('read'),
  writes: transfers('write'),
  mapped,
  vectors,
  'waiting-fds': waiting,
  'waiting-bytes': waitingBytes,
  posted,
  unread,
  half,
  json,
};
