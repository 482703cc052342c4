// SPDX-License-Identifier: MIT
// Moves a device, state and all, from one server to another: node examples/migrate.mjs /tmp/source.sock /tmp/target.sock
import { pipeline } from 'node:stream/promises';
import { connect } from 'vfio-user';

const [from = '/tmp/source.sock', to = '/tmp/target.sock'] = process.argv.slice(2);
const source = await connect(from);
const target = await connect(to);
const { preCopy } = await source.migration.supported();
const state = source.migration.createReadStream({ preCopy });
try {
  // The source runs while its early state is read, and stops for the rest; the target starts when it has all of it.
  await pipeline(state, target.migration.createWriteStream());
  console.log(`${from} is ${await source.migration.state()}, ${to} is ${await target.migration.state()}`);
  console.log(`${state.bytesRead} bytes`);
} catch (error) {
  // The stream has brought the source back unless the target failed at the very end.
  if (!source.closed) await source.migration.setState('running');
  throw error;
} finally {
  await source.close();
  await target.close();
}
