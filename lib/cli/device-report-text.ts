// SPDX-License-Identifier: MIT
import { formatSize } from '../bench/units';
import { CommandSets } from '../nvme/spec';
import { capabilityName, extendedCapabilityName, type Capability, type ExtendedCapability } from '../pci';
import type { Capabilities } from '../protocol';
import type {
  DeviceReport,
  IrqReport,
  NvmeReport,
  PciReport,
  Problem,
  ProtocolReport,
  RegionReport,
} from './device-report';
import { hex, printable } from './output';
import type { RoundTrip, RoundTripTimes } from './round-trip';

type Row = readonly string[];

/** The report of `vfio-user info` for a terminal. */
export function formatDeviceReport(report: DeviceReport): string {
  const { protocol, device, pci, nvme, roundTrip } = report;
  const sections: [string, readonly Row[]][] = [
    protocol === null ? kernelSection(report.kernel) : protocolSection(protocol),
    [
      `Device: ${device.regions} regions, ${device.irqs} interrupt indexes, ${device.resettable ? 'can be reset' : 'offers no reset'}`,
      [],
    ],
    ['Regions', report.regions.flatMap(regionRow)],
    ['Interrupts', report.irqs.flatMap(irqRow)],
    'problem' in pci ? [`PCI: ${pci.problem}`, []] : [`PCI: ${pciTitle(pci)}`, pciRows(pci)],
    ...nvmeSection(nvme),
    roundTripSection(roundTrip, protocol === null ? 'Register access' : 'Message round trip'),
  ];
  const lines = sections.flatMap(([title, rows]) => ['', title, ...align(rows)]);
  return [report.endpoint, ...lines].map(printable).join('\n');
}

function protocolSection({ version, client, server }: ProtocolReport): [string, readonly Row[]] {
  return [
    `Protocol: vfio-user ${version}`,
    [
      ['this client', ...capabilityWords(client)],
      ['the server', ...capabilityWords(server)],
    ],
  ];
}

function kernelSection(kernel: DeviceReport['kernel']): [string, readonly Row[]] {
  const ways = { iommufd: 'iommufd', group: 'IOMMU group', noiommu: 'group without an IOMMU' };
  return [`Kernel VFIO: through its ${ways[kernel?.through ?? 'group']}`, []];
}

/** Rows under a heading, their cells in columns. */
function align(rows: readonly Row[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => (widths[column] = Math.max(widths[column] ?? 0, cell.length)));
  }
  return rows.map((row) =>
    `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd(),
  );
}

function capabilityWords({
  maxMsgFds,
  maxDataXferSize,
  maxDmaMaps,
  pageSizes,
  twinSocket,
  writeMultiple,
}: Capabilities): Row {
  return [
    `${maxMsgFds} descriptors a message`,
    `${formatSize(maxDataXferSize)} a transfer`,
    `${maxDmaMaps} DMA mappings`,
    `pages ${hex(pageSizes)}`,
    [twinSocket.supported ? 'twin socket' : '', writeMultiple ? 'multiple writes' : '']
      .filter((word) => word !== '')
      .join(', '),
  ];
}

function regionRow(region: DeviceReport['regions'][number]): Row[] {
  if ('problem' in region) return [[region.name, `refused: ${region.problem}`]];
  return region.size === 0 ? [] : [[region.name, formatSize(region.size), access(region), mapping(region)]];
}

function access({ readable, writable }: RegionReport): string {
  if (readable && writable) return 'read, write';
  if (readable) return 'read';
  return writable ? 'write' : 'no access';
}

function mapping({ mappable, areas, fds }: RegionReport): string {
  if (!mappable) return '';
  const where = areas.map(({ offset, size }) => `${hex(offset)}+${hex(size)}`).join(', ');
  const descriptors = fds === undefined ? '' : ` (${fds === 1 ? '1 descriptor' : `${fds} descriptors`})`;
  return `mappable ${where}${descriptors}`;
}

function irqRow(irq: DeviceReport['irqs'][number]): Row[] {
  if ('problem' in irq) return [[irq.name, `refused: ${irq.problem}`]];
  return irq.count === 0
    ? []
    : [[irq.name, irq.count === 1 ? '1 vector' : `${irq.count} vectors`, irqFlags(irq)]];
}

function irqFlags(irq: IrqReport): string {
  const flags = (['eventfd', 'maskable', 'automasked', 'noresize'] as const).filter((flag) => irq[flag]);
  return flags.join(', ');
}

function pciTitle({ header, vendor, device, class: name }: PciReport): string {
  const ids = `${digits(header.vendorId)}:${digits(header.deviceId)}`;
  const names = [vendor, device].filter((word) => word !== undefined).join(' ');
  return `${name}, ${ids}${names === '' ? '' : ` ${names}`}`;
}

function digits(id: number): string {
  return id.toString(16).padStart(4, '0');
}

function pciRows({ header, capabilities, extendedCapabilities }: PciReport): Row[] {
  const { subsystemVendorId, subsystemId } = header;
  const rows: Row[] = [
    ['class', `${hex(header.classCode, 6)}, revision ${hex(header.revisionId, 2)}`],
    ['command', hex(header.command, 4)],
    ['status', hex(header.status, 4)],
  ];
  if (subsystemVendorId !== undefined && subsystemId !== undefined) {
    rows.push(['subsystem', `${digits(subsystemVendorId)}:${digits(subsystemId)}`]);
  }
  for (const capability of capabilities.capabilities) {
    rows.push([
      `cap ${hex(capability.offset, 2)}`,
      `${capabilityName(capability.id)}${describe(capability)}`,
    ]);
  }
  if (capabilities.problem !== undefined) rows.push(['problem', capabilities.problem]);
  for (const capability of extendedCapabilities.capabilities) {
    rows.push([
      `cap ${hex(capability.offset, 3)}`,
      `${extendedCapabilityName(capability.id)}${describeExtended(capability)}`,
    ]);
  }
  if (extendedCapabilities.problem !== undefined) rows.push(['problem', extendedCapabilities.problem]);
  return rows;
}

function describe(capability: Capability): string {
  switch (capability.kind) {
    case 'power-management':
      return `: version ${capability.version}, in ${capability.state === 3 ? 'D3hot' : `D${capability.state}`}${capability.noSoftReset ? ', no soft reset' : ''}`;
    case 'msi':
      return `: ${capability.vectors} vectors, ${enabled(capability.enabled)}`;
    case 'msix': {
      const { vectors, table, pba } = capability;
      return `: ${vectors} vectors, table bar${table.bar}+${hex(table.offset)}, pending bits bar${pba.bar}+${hex(pba.offset)}, ${enabled(capability.enabled)}`;
    }
    case 'express':
      return `: version ${capability.version}, device type ${capability.deviceType}${capability.functionLevelReset ? ', function level reset' : ''}`;
    case 'vendor':
      return `: ${capability.length} bytes`;
    case 'unknown':
      return '';
  }
}

function enabled(on: boolean): string {
  return on ? 'enabled' : 'disabled';
}

function describeExtended(capability: ExtendedCapability): string {
  switch (capability.kind) {
    case 'serial-number':
      return `: ${capability.serialNumber.toString(16).padStart(16, '0')}`;
    case 'vendor-extended':
      return `: id ${hex(capability.vendorSpecificId, 4)}, ${capability.length} bytes`;
    case 'advanced-errors':
    case 'unknown-extended':
      return '';
  }
}

function nvmeSection(nvme: NvmeReport | Problem | null): [string, readonly Row[]][] {
  if (nvme === null) return [];
  if ('problem' in nvme) return [[`NVMe: ${nvme.problem}`, []]];
  return [[`NVMe ${nvme.version}`, nvmeRows(nvme)]];
}

/** The lines about an NVMe controller's registers. */
function nvmeRows({ capabilities, cap, cc, csts, doorbellsMappable }: NvmeReport): Row[] {
  const { maxQueueEntries, timeout, dstrd, minPageSize, maxPageSize, commandSets } = capabilities;
  return [
    ['CAP', hex(cap, 16)],
    [
      'queues',
      `up to ${maxQueueEntries} entries${capabilities.contiguousQueuesRequired ? ', contiguous' : ''}`,
    ],
    ['doorbells', `${4 << dstrd} bytes apart, ${doorbellsMappable ? 'mappable' : 'by message only'}`],
    [
      'pages',
      minPageSize === maxPageSize
        ? formatSize(minPageSize)
        : `${formatSize(minPageSize)} to ${formatSize(maxPageSize)}`,
    ],
    ['ready within', `${timeout / 1000} s`],
    ['command sets', (commandSets & CommandSets.nvm) === 0 ? hex(commandSets) : 'NVM'],
    ['state', `CC ${hex(cc, 8)}, CSTS ${hex(csts, 8)}`],
  ];
}

function roundTripSection(roundTrip: RoundTrip | Problem, what: string): [string, readonly Row[]] {
  if ('problem' in roundTrip) return [`${what}: ${roundTrip.problem}`, []];
  const row = (name: string, { min, median, max }: RoundTripTimes): Row => [
    name,
    `min ${min} us`,
    `median ${median} us`,
    `max ${max} us`,
  ];
  return [
    `${what}: ${roundTrip.samples} reads of 4 bytes each way`,
    [row('asynchronous', roundTrip.async), row('synchronous', roundTrip.sync)],
  ];
}
