// SPDX-License-Identifier: MIT
/** What a controller and its namespaces are known by. */
import { type Backend, BackendResult } from '../../../lib/nvme/backends';
import { NvmeControllerModel, type NvmeControllerOptions } from '../../../lib/nvme/controller';
import {
  type NamespaceDescriptors,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeNamespaceDescriptors,
  decodeNamespaceList,
} from '../../../lib/nvme/spec';
import { MIB, identified } from './namespace-support';
import { Host } from './support';

function backend(identity?: string): Backend {
  return {
    kind: 'test',
    size: MIB,
    ...(identity !== undefined && { identity }),
    volatileCache: false,
    read: () => BackendResult.success,
    write: () => BackendResult.success,
    zero: () => BackendResult.success,
    deallocate: () => BackendResult.success,
    flush: () => Promise.resolve(),
    close: () => undefined,
  };
}

interface Seen {
  readonly sn: string;
  readonly mn: string;
  readonly subnqn: string;
  readonly namespaces: readonly NamespaceDescriptors[];
}

/** Serial number, NQN and the identifiers of the namespaces, as a host sees them. */
async function seen(options: NvmeControllerOptions): Promise<Seen> {
  const host = new Host(new NvmeControllerModel(options));
  host.enable();
  const { sn, mn, subnqn } = decodeIdentifyController(await identified(host, 1));
  const namespaces: NamespaceDescriptors[] = [];
  for (const nsid of decodeNamespaceList(await identified(host, 2))) {
    const { nguid, eui64 } = decodeIdentifyNamespace(await identified(host, 0, nsid));
    const descriptors = decodeNamespaceDescriptors(await identified(host, 3, nsid));
    expect(descriptors).toMatchObject({ nguid, eui64 });
    namespaces.push(descriptors);
  }
  host.close();
  return { sn, mn, subnqn, namespaces };
}

test('stays the same for the same files, wherever they are used', async () => {
  const a = await seen({ namespaces: [{ backend: backend('/a') }, { backend: backend('/b') }] });
  const again = await seen({ namespaces: [{ backend: backend('/a') }, { backend: backend('/b') }] });
  expect(again).toEqual(a);
  const other = await seen({ namespaces: [{ backend: backend('/b'), nsid: 9 }], serial: 'X' });
  expect(other.namespaces).toEqual([a.namespaces[1]]);
  expect(other.subnqn).not.toBe(a.subnqn);
});

test('of memory follows from serial number and id, and is by chance without one', async () => {
  const namespaces = [{ backend: backend() }, { backend: backend() }];
  const a = await seen({ namespaces, serial: 'S' });
  expect(await seen({ namespaces, serial: 'S' })).toEqual(a);
  const [one, two] = a.namespaces;
  expect(one).not.toEqual(two);
  const b = await seen({ namespaces });
  expect(b.sn).toMatch(/^VFU[0-9a-f]{12}$/);
  expect(await seen({ namespaces })).not.toEqual(b);
});

test('can be given', async () => {
  const uuid = '01234567-89ab-CDEF-0123-456789abcdef';
  expect(
    await seen({
      serial: 'S 1',
      model: 'M',
      nqn: 'nqn.2026-01.org.example:disk',
      namespaces: [
        { backend: backend(), uuid },
        { backend: backend(), nguid: 'f'.repeat(32), eui64: '02-00-00-00-00-00-00-01', uuid },
      ],
    }),
  ).toEqual({
    sn: 'S 1',
    mn: 'M',
    subnqn: 'nqn.2026-01.org.example:disk',
    namespaces: [
      {
        uuid: uuid.toLowerCase(),
        nguid: '0123456789abcdef0123456789abcdef',
        eui64: expect.any(String),
        csi: 0,
      },
      { uuid: uuid.toLowerCase(), nguid: 'f'.repeat(32), eui64: '0200000000000001', csi: 0 },
    ],
  });
});

test('an EUI-64 that was made up is local, and not that of a group', async () => {
  for (let i = 0; i < 8; i++) {
    const { namespaces } = await seen({ namespaces: [{ backend: backend(`/${i}`) }] });
    expect(parseInt(namespaces[0]!.eui64!.slice(0, 2), 16) & 3).toBe(2);
  }
});

test('a controller without namespaces', async () => {
  expect(await seen({ namespaces: [] })).toMatchObject({ mn: 'vfio-user drive', namespaces: [] });
});

test.each([
  [{ uuid: '0123' }, 'uuid is 32 hexadecimal digits, with or without dashes, got "0123"'],
  [{ nguid: 'g'.repeat(32) }, 'nguid is 32 hexadecimal digits'],
  [{ eui64: '0'.repeat(16) }, 'eui64 is not zero'],
  [{ blockSize: 520 as never }, 'blockSize is 512 or 4096, got 520'],
  [{ nsid: 1025 }, 'nsid is an integer from 1 to 1024 (maxNamespaces), got 1025'],
])('a namespace with %j is refused', (options, message) => {
  expect(() => new NvmeControllerModel({ namespaces: [{ backend: backend(), ...options }] })).toThrow(
    message,
  );
});

test.each([
  [{}, 'A controller is given either its backend or its namespaces'],
  [{ backend: backend(), namespaces: [] }, 'A controller is given either its backend or its namespaces'],
  [{ namespaces: [], blockSize: 512 as const }, 'blockSize is given with each of the namespaces'],
  [{ namespaces: [], maxNamespaces: 1025 }, 'maxNamespaces is an integer from 1 to 1024, got 1025'],
  [{ namespaces: [], nqn: 'disk' }, 'nqn is at most 223 bytes such as'],
  [{ namespaces: [], nqn: `nqn.2026-01.org.example:${'x'.repeat(200)}` }, 'nqn is at most 223 bytes'],
  [
    { namespaces: [{ backend: backend() }, { backend: backend() }], maxNamespaces: 1 },
    'The controller has all of its 1 namespaces (maxNamespaces)',
  ],
])('a controller with %j is refused', (options, message) => {
  expect(() => new NvmeControllerModel(options)).toThrow(message);
});
