// SPDX-License-Identifier: MIT
import { PCI_HEADER_BYTES, PciCommand, PciConfig, parseConfigHeader } from '../pci/config-header';
import type { RegisterSpace } from '../pci/device';

const DWORD = 4;

/** What is used of a configuration space. */
type Space = Pick<RegisterSpace, 'readBytes' | 'write16' | 'write32'>;

/**
 * The header of configuration space as it was before the first client: each client is to find it so, as if it had opened the device
 * itself. A reset does not see to that, since the kernel's VFIO puts back what configuration space had before it.
 */
export class ConfigHeader {
  readonly identity: Pick<ReturnType<typeof parseConfigHeader>, 'vendorId' | 'deviceId' | 'classCode'>;
  readonly #config: Space;
  readonly #before: DataView;
  /** The command register as it is when nobody uses the device: the kernel's VFIO opens a device with Bus Master Enable clear. */
  readonly #command: number;

  private constructor(config: Space, bytes: Uint8Array) {
    const { vendorId, deviceId, classCode, command } = parseConfigHeader(bytes);
    this.identity = { vendorId, deviceId, classCode };
    this.#config = config;
    this.#before = viewOf(bytes);
    this.#command = command & ~PciCommand.busMaster;
  }

  static async of(config: Space): Promise<ConfigHeader> {
    return new ConfigHeader(config, await config.readBytes(0, PCI_HEADER_BYTES));
  }

  /** Keeps the device from memory, and puts the command register back. */
  async silence(): Promise<void> {
    await this.#config.write16(PciConfig.command, this.#command);
  }

  /** Puts the BARs back, and whatever else has changed behind the class code. */
  async restore(): Promise<void> {
    const now = viewOf(await this.#config.readBytes(0, PCI_HEADER_BYTES));
    for (let offset: number = PciConfig.cacheLineSize; offset < PCI_HEADER_BYTES; offset += DWORD) {
      const before = this.#before.getUint32(offset, true);
      if (now.getUint32(offset, true) !== before) await this.#config.write32(offset, before);
    }
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
