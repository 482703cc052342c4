// SPDX-License-Identifier: MIT

/** Names of base classes (PCI Code and ID Assignment 1.11, 1). */
const BASE_CLASSES: ReadonlyMap<number, string> = new Map([
  [0x00, 'Unclassified device'],
  [0x01, 'Mass storage controller'],
  [0x02, 'Network controller'],
  [0x03, 'Display controller'],
  [0x04, 'Multimedia controller'],
  [0x05, 'Memory controller'],
  [0x06, 'Bridge'],
  [0x07, 'Communication controller'],
  [0x08, 'Generic system peripheral'],
  [0x09, 'Input device controller'],
  [0x0a, 'Docking station'],
  [0x0b, 'Processor'],
  [0x0c, 'Serial bus controller'],
  [0x0d, 'Wireless controller'],
  [0x0e, 'Intelligent controller'],
  [0x0f, 'Satellite communications controller'],
  [0x10, 'Encryption controller'],
  [0x11, 'Signal processing controller'],
  [0x12, 'Processing accelerator'],
  [0x13, 'Non-essential instrumentation'],
  [0xff, 'Unassigned class'],
]);

/** Names of subclasses, by base class and subclass. */
const SUBCLASSES: ReadonlyMap<number, string> = new Map([
  [0x0100, 'SCSI storage controller'],
  [0x0101, 'IDE interface'],
  [0x0104, 'RAID bus controller'],
  [0x0106, 'SATA controller'],
  [0x0107, 'Serial attached SCSI controller'],
  [0x0108, 'Non-volatile memory controller'],
  [0x0109, 'Universal flash storage controller'],
  [0x0200, 'Ethernet controller'],
  [0x0207, 'InfiniBand controller'],
  [0x0300, 'VGA compatible controller'],
  [0x0302, '3D controller'],
  [0x0403, 'Audio device'],
  [0x0500, 'RAM memory'],
  [0x0502, 'CXL memory device'],
  [0x0600, 'Host bridge'],
  [0x0601, 'ISA bridge'],
  [0x0604, 'PCI bridge'],
  [0x0700, 'Serial controller'],
  [0x0c03, 'USB controller'],
  [0x0c05, 'SMBus'],
  [0x1200, 'Processing accelerator'],
]);

/** Names of programming interfaces that tell drivers apart, by class code. */
const INTERFACES: ReadonlyMap<number, string> = new Map([
  [0x010601, 'AHCI'],
  [0x010802, 'NVM Express'],
  [0x010803, 'NVM Express administrative'],
  [0x050210, 'CXL'],
  [0x070002, '16550'],
  [0x0c0330, 'XHCI'],
]);

/**
 * Name of a class code, such as `Non-volatile memory controller (NVM Express)`.
 * @param classCode base class, subclass and programming interface, 24 bits
 */
export function className(classCode: number): string {
  const name =
    SUBCLASSES.get(classCode >>> 8) ??
    BASE_CLASSES.get(classCode >>> 16) ??
    `Class ${(classCode >>> 8).toString(16).padStart(4, '0')}`;
  const programming = INTERFACES.get(classCode);
  return programming === undefined ? name : `${name} (${programming})`;
}

/** Vendors whose devices are served over vfio-user, or stand beside them in a guest. */
const VENDORS: ReadonlyMap<number, string> = new Map([
  [0x1022, 'AMD'],
  [0x10de, 'NVIDIA'],
  [0x10ee, 'Xilinx'],
  [0x144d, 'Samsung'],
  [0x15b3, 'Mellanox'],
  [0x1af4, 'Red Hat (virtio)'],
  [0x1b36, 'Red Hat (QEMU)'],
  [0x494f, 'ACCES I/O Products'],
  [0x4e58, 'Nutanix'],
  [0x8086, 'Intel'],
]);

/** Devices, by vendor id and device id. */
const DEVICES: ReadonlyMap<number, string> = new Map([
  [0x1af41041, 'Virtio network device'],
  [0x1af41042, 'Virtio block device'],
  [0x1af41048, 'Virtio SCSI'],
  [0x1b360010, 'QEMU NVM Express controller'],
  [0x494f0dc8, 'PCI-IDIO-16 GPIO'],
  [0x4e580001, 'SPDK NVMe controller'],
]);

/** Name of a vendor; undefined when it is not in our short table. */
export function vendorName(vendorId: number): string | undefined {
  return VENDORS.get(vendorId);
}

/** Name of a device; undefined when it is not in our short table. */
export function deviceName(vendorId: number, deviceId: number): string | undefined {
  return DEVICES.get(vendorId * 0x1_0000 + deviceId);
}

/** Capability names by id (PCI Code and ID Assignment 1.11, 2). */
const CAPABILITIES: ReadonlyMap<number, string> = new Map([
  [0x01, 'Power Management'],
  [0x02, 'AGP'],
  [0x03, 'Vital Product Data'],
  [0x04, 'Slot Identification'],
  [0x05, 'MSI'],
  [0x06, 'CompactPCI Hot Swap'],
  [0x07, 'PCI-X'],
  [0x08, 'HyperTransport'],
  [0x09, 'Vendor Specific'],
  [0x0a, 'Debug Port'],
  [0x0d, 'Bridge Subsystem'],
  [0x10, 'PCI Express'],
  [0x11, 'MSI-X'],
  [0x12, 'SATA'],
  [0x13, 'Advanced Features'],
  [0x14, 'Enhanced Allocation'],
]);

/** Extended capability names by id (PCI Code and ID Assignment 1.11, 3). */
const EXTENDED_CAPABILITIES: ReadonlyMap<number, string> = new Map([
  [0x01, 'Advanced Error Reporting'],
  [0x02, 'Virtual Channel'],
  [0x03, 'Device Serial Number'],
  [0x04, 'Power Budgeting'],
  [0x0b, 'Vendor Specific Extended'],
  [0x0d, 'Access Control Services'],
  [0x0e, 'Alternative Routing-ID'],
  [0x0f, 'Address Translation Service'],
  [0x10, 'Single Root I/O Virtualization'],
  [0x13, 'Page Request Interface'],
  [0x15, 'Resizable BAR'],
  [0x16, 'Dynamic Power Allocation'],
  [0x17, 'TPH Requester'],
  [0x18, 'Latency Tolerance Reporting'],
  [0x19, 'Secondary PCI Express'],
  [0x1b, 'Process Address Space ID'],
  [0x1e, 'L1 PM Substates'],
  [0x1f, 'Precision Time Measurement'],
  [0x23, 'Designated Vendor Specific'],
  [0x25, 'Data Link Feature'],
  [0x26, 'Physical Layer 16.0 GT/s'],
  [0x2e, 'Data Object Exchange'],
]);

/** Name of a capability, such as `MSI-X`; `Capability 1Fh` when the id is not known. */
export function capabilityName(id: number): string {
  return CAPABILITIES.get(id) ?? `Capability ${id.toString(16).padStart(2, '0').toUpperCase()}h`;
}

/** Name of an extended capability; `Extended capability 0030h` when the id is not known. */
export function extendedCapabilityName(id: number): string {
  return (
    EXTENDED_CAPABILITIES.get(id) ?? `Extended capability ${id.toString(16).padStart(4, '0').toUpperCase()}h`
  );
}
