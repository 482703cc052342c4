// SPDX-License-Identifier: MIT
import {
  decodeDmaMapRequest,
  decodeHeader,
  decodeRegionReadRequest,
  encodeDmaMapRequest,
  encodeHeader,
  encodeRegionReadRequest,
} from '../lib/protocol';
import { median } from './statistics';

/** Time of one call. */
export interface CodecTime {
  readonly name: string;
  readonly nanoseconds: number;
}

/** Measures the codecs of the messages that are sent most; `calls` of each in each round. */
export function measureCodecs(rounds: number, calls: number): CodecTime[] {
  const header = { id: 1, command: 9, size: 32, flags: 0, error: 0 };
  const view = new DataView(new ArrayBuffer(16));
  const read = { offset: 0x1000, region: 0, count: 4 };
  const readPayload = encodeRegionReadRequest(read);
  const map = { flags: 3, offset: 0, address: 0x1_0000_0000, size: 0x20_0000 };
  const mapPayload = encodeDmaMapRequest(map);
  // Each returns a number, which is used, so that its work has to be done.
  const codecs: readonly (readonly [string, () => number])[] = [
    [
      'header, encode',
      () => {
        encodeHeader(view, 0, header);
        return 1;
      },
    ],
    ['header, decode', () => decodeHeader(view, 0, header).size],
    ['REGION_READ request, encode', () => encodeRegionReadRequest(read).length],
    ['REGION_READ request, decode', () => decodeRegionReadRequest(readPayload, 1 << 20).count],
    ['DMA_MAP request, encode', () => encodeDmaMapRequest(map).length],
    ['DMA_MAP request, decode', () => decodeDmaMapRequest(mapPayload).flags],
  ];
  const times = codecs.map((): number[] => []);
  // The first round, in which functions are compiled, does not count.
  for (let round = 0; round <= rounds; round++) {
    codecs.forEach(([, codec], index) => {
      const start = performance.now();
      let sum = 0;
      for (let call = 0; call < calls; call++) sum += codec();
      const time = ((performance.now() - start) * 1e6) / calls;
      if (round > 0 && sum > 0) times[index]?.push(time);
    });
  }
  return codecs.map(([name], index) => ({ name, nanoseconds: median(times[index] ?? []) }));
}
