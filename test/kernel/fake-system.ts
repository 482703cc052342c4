// SPDX-License-Identifier: MIT
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import type { SystemRoots } from '../../lib/kernel/roots';

/** A function of a {@link FakeSystem}; ids and class as sysfs writes them. */
export interface FakeFunction {
  readonly vendor?: string;
  readonly device?: string;
  readonly class?: string;
  readonly driver?: string;
  readonly override?: string;
  readonly group?: number;
  readonly groupName?: string;
  readonly node?: string;
  readonly vfioNode?: string;
  readonly physfn?: string;
  /** Folders below it, such as `nvme/nvme0/nvme0n1`. */
  readonly folders?: readonly string[];
}

/** Directories like those of a system, with files that nobody reads. */
export class FakeSystem implements SystemRoots {
  readonly root = mkdtempSync(join(tmpdir(), 'fake-system-'));
  readonly sys = join(this.root, 'sys');
  readonly dev = join(this.root, 'dev');
  readonly proc = join(this.root, 'proc');
  readonly run = join(this.root, 'run');

  constructor() {
    for (const folder of [this.dev, this.proc, this.run, join(this.sys, 'bus/pci/devices')])
      mkdirSync(folder, { recursive: true });
    this.write('sys/bus/pci/drivers_probe', '');
  }

  /** Writes a file, with the folders above it. */
  write(path: string, text: string): this {
    const file = join(this.root, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return this;
  }

  read(path: string): string {
    return readFileSync(join(this.root, path), 'utf8');
  }

  driver(name: string): this {
    return this.write(`sys/bus/pci/drivers/${name}/unbind`, '');
  }

  /** Adds a function, with its driver and group. */
  add(address: string, given: FakeFunction): this {
    const path = `sys/bus/pci/devices/${address}`;
    this.write(`${path}/vendor`, `${given.vendor ?? '0x1b36'}\n`)
      .write(`${path}/device`, `${given.device ?? '0x0010'}\n`)
      .write(`${path}/class`, `${given.class ?? '0x010802'}\n`)
      .write(`${path}/numa_node`, `${given.node ?? '-1'}\n`)
      .write(`${path}/driver_override`, `${given.override ?? '(null)'}\n`);
    if (given.driver !== undefined)
      this.driver(given.driver).#link(`${path}/driver`, `sys/bus/pci/drivers/${given.driver}`);
    if (given.group !== undefined) {
      const group = `sys/kernel/iommu_groups/${given.group}`;
      this.write(`${group}/devices/${address}`, '');
      if (given.groupName !== undefined) this.write(`${group}/name`, `${given.groupName}\n`);
      this.#link(`${path}/iommu_group`, group);
    }
    if (given.vfioNode !== undefined) this.write(`${path}/vfio-dev/${given.vfioNode}/dev`, '511:0\n');
    if (given.physfn !== undefined) this.#link(`${path}/physfn`, `sys/bus/pci/devices/${given.physfn}`);
    for (const folder of given.folders ?? []) this.write(`${path}/${folder}/size`, '1\n');
    return this;
  }

  /** Adds a mediated device, whose type has an interface. */
  addMediated(uuid: string, api: string, given: Pick<FakeFunction, 'group' | 'vfioNode'> = {}): this {
    const path = `sys/bus/mdev/devices/${uuid}`;
    this.write(`${path}/mdev_type/device_api`, `${api}\n`);
    if (given.group !== undefined) {
      const group = `sys/kernel/iommu_groups/${given.group}`;
      this.write(`${group}/name`, 'vfio-noiommu\n').#link(`${path}/iommu_group`, group);
    }
    if (given.vfioNode !== undefined) this.write(`${path}/vfio-dev/${given.vfioNode}/dev`, '511:1\n');
    return this;
  }

  remove(): void {
    rmSync(this.root, { recursive: true });
  }

  #link(path: string, target: string): this {
    symlinkSync(relative(dirname(path), target), join(this.root, path));
    return this;
  }
}
