// SPDX-License-Identifier: MIT
import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { serve } from '../../lib/server';
import { dist } from '../dist';
import { MigratingModel, pattern } from '../server/migration-model';

test('migrate moves a device', async () => {
  const [from, to] = [new MigratingModel(pattern(300_000)), new MigratingModel()];
  from.early = pattern(100_000);
  const paths = ['source', 'target'].map((name) => `@vfio-user-${name}-${process.pid}`);
  const servers = await Promise.all([from, to].map((model, index) => serve(paths[index] ?? '', model)));
  try {
    const args = [join(dirname(dist), 'examples', 'migrate.mjs'), ...paths];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    expect(stdout).toBe(`${paths[0]} is stop, ${paths[1]} is running\n400000 bytes\n`);
    expect(Buffer.compare(to.data, Buffer.concat([pattern(100_000), pattern(300_000)]))).toBe(0);
  } finally {
    for (const server of servers) await server.close();
    for (const model of [from, to]) model.close();
  }
});
