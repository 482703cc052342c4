// SPDX-License-Identifier: MIT
/** Where the samples and commands of the documents run: a folder with the package installed, and devices to talk to. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { NvmeControllerModel, createBackend } from '../../lib/nvme';
import { serve, type Server } from '../../lib/server';
import { dist } from '../dist';
import { MigratingModel, pattern } from '../server/migration-model';

/**
 * The working directory of a reader. In it are `nvme.sock`, the emulated NVMe controller as `vfio-user serve nvme` serves it
 * with `--size 64m`, and `source.sock` and `target.sock`, a device that migrates and an empty one of its kind.
 */
export class Stage {
  readonly path = mkdtempSync(join(tmpdir(), 'docs-test-'));
  /** With the tool in its PATH. */
  readonly env: NodeJS.ProcessEnv;
  readonly #servers: Server[] = [];
  readonly #models: { close(): void }[] = [];

  constructor() {
    const modules = join(this.path, 'node_modules');
    const bin = join(modules, '.bin');
    mkdirSync(bin, { recursive: true });
    symlinkSync(dirname(dist), join(modules, 'vfio-user'));
    const tool = join(bin, 'vfio-user');
    writeFileSync(tool, `#!/bin/sh\nexec '${process.execPath}' '${join(dist, 'cli', 'main.js')}' "$@"\n`);
    chmodSync(tool, 0o755);
    this.env = { ...process.env, PATH: `${bin}:${process.env['PATH'] ?? ''}`, NO_COLOR: '1' };
    delete this.env['NODE_DEBUG'];
    delete this.env['NODE_OPTIONS'];
  }

  /** Serves new devices. */
  async open(): Promise<void> {
    await this.clear();
    const backend = createBackend({ kind: 'memory', size: 64 << 20 });
    const models = {
      'nvme.sock': new NvmeControllerModel({ backend, serial: 'VU0000000001' }),
      'source.sock': new MigratingModel(pattern(300_000)),
      'target.sock': new MigratingModel(),
    };
    for (const [name, model] of Object.entries(models)) {
      this.#models.push(model);
      this.#servers.push(await serve(join(this.path, name), model));
    }
  }

  async close(): Promise<void> {
    await this.clear();
    rmSync(this.path, { recursive: true });
  }

  /** Serves nothing any more. */
  async clear(): Promise<void> {
    for (const server of this.#servers.splice(0)) await server.close();
    for (const model of this.#models.splice(0)) model.close();
  }
}

/**
 * Text with what differs from run to run taken out: the folder, measured numbers (those with a fraction, of four digits and more,
 * of seconds, percent and I/Os, and all of a table's rows) and the width of columns.
 */
export function steady(text: string, folder: string): string {
  return text
    .replaceAll(folder, '/tmp/demo')
    .replace(/^(?:read|write) +\d.*$/gm, (row) => row.replace(/\d+/g, '#'))
    .replace(/\b\d+\.\d+|\b\d{4,}\b|\b\d+(?= (?:[mun]?s|%|I\/Os))/g, '#')
    .replace(/#\.#/g, '#')
    .replace(/ +/g, ' ')
    .trimEnd();
}
