// SPDX-License-Identifier: MIT
import { PciSysfs, type PciFunctionInfo } from '../kernel/sysfs';
import { className, deviceName, vendorName } from '../pci';
import { defineCommand } from './command';
import { NVME_CLASS } from './device-report';
import type { CommandSpec } from './option-spec';
import { print, printable } from './output';
import { systemRoots } from './system-roots';

const SPEC = {
  name: 'devices',
  summary: 'List PCI devices that can be driven through the kernel, with driver, IOMMU group and NUMA node.',
  options: {
    all: {
      type: 'boolean',
      help: 'List devices of all classes. Without it: NVMe controllers, and what is bound to VFIO.',
    },
    json: { type: 'boolean', help: 'Print JSON.' },
  },
} as const satisfies CommandSpec;

/** `vfio-user devices` */
export const devices = defineCommand(SPEC, ({ all, json }) => {
  const sysfs = new PciSysfs(systemRoots().sys);
  const found = sysfs
    .list()
    .filter(({ classCode, driver }) => all || classCode === NVME_CLASS || driver?.includes('vfio') === true);
  if (json) {
    print(JSON.stringify(found, null, 2));
    return;
  }
  if (found.length === 0) {
    print(
      all
        ? 'There are no PCI devices.'
        : 'There is no NVMe controller, and nothing is bound to VFIO; --all lists all devices.',
    );
    return;
  }
  const rows = [
    ['ADDRESS', 'DRIVER', 'GROUP', 'NODE', 'DEVICE'],
    ...found.map((device) => [
      device.address,
      device.driver ?? '-',
      device.iommuGroup === null ? '-' : `${device.iommuGroup}${device.noiommu ? ' (no IOMMU)' : ''}`,
      String(device.numaNode ?? '-'),
      nameOf(device),
    ]),
  ];
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  print(
    rows
      .map((row) =>
        printable(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')).trimEnd(),
      )
      .join('\n'),
  );
});

function nameOf({ classCode, vendorId, deviceId }: PciFunctionInfo): string {
  const id = [vendorId, deviceId].map((value) => value.toString(16).padStart(4, '0')).join(':');
  const names = [vendorName(vendorId), deviceName(vendorId, deviceId)].filter((name) => name !== undefined);
  return [`${className(classCode)}, ${id}`, ...names].join(' ');
}
