// SPDX-License-Identifier: MIT
// Prints the registers of a device that change: node examples/register-monitor.mjs /tmp/gpio.sock bar2 0x0 8 1
import { connect } from 'vfio-user';

const [, , endpoint = '/tmp/gpio.sock', name = 'bar0', first = '0', count = '16', width = '4'] = process.argv;
const bytes = Number(width);
const read = bytes === 1 ? 'read8' : bytes === 2 ? 'read16' : bytes === 4 ? 'read32' : undefined;
if (read === undefined) throw new Error('a register has 1, 2 or 4 bytes');

const device = await connect(endpoint);
const region = await device.region(/** @type {import('vfio-user').PciRegionName} */ (name));
const offsets = Array.from({ length: Number(count) }, (_, index) => Number(first) + index * bytes);
/** @type {Map<number, number>} */
const known = new Map();
const stop = new AbortController();
device.once('close', () => stop.abort());
process.once('SIGINT', () => stop.abort());

while (!stop.signal.aborted) {
  // All reads are on their way at once; the replies come in one go.
  const values = await Promise.all(offsets.map((offset) => region[read](offset)));
  values.forEach((value, index) => {
    const offset = offsets[index] ?? 0;
    const before = known.get(offset);
    if (before === value) return;
    known.set(offset, value);
    const hex = (/** @type {number} */ number) => `0x${number.toString(16).padStart(2 * bytes, '0')}`;
    console.log(
      `${name}+0x${offset.toString(16)}: ${before === undefined ? '' : `${hex(before)} -> `}${hex(value)}`,
    );
  });
  await new Promise((resolve) => setTimeout(resolve, 100));
}
await device.close();
