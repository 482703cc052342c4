// SPDX-License-Identifier: MIT
import { declaredBars, type BarDeclaration } from '../pci/declaration';
import { ConfigSpace, type ConfigEffect } from '../pci/config-space';
import { PciCommand } from '../pci/config-header';
import { PciIrq, PciRegion } from '../pci/device';
import type { PciDeviceModel, ServedBar, ServedRegion } from './device-model';
import { describeIrqs, type IrqDescription } from './irq-description';
import type { Eventually } from './model-calls';
import { MsixTable } from './msix-table';

/**
 * The PCI function of a device model: configuration space, and all regions and interrupts, of which that and the MSI-X structures
 * are the server's. It is as after power-on for each client.
 */
export class FunctionState {
  readonly config: ConfigSpace;
  /** Null without the capability. */
  readonly msix: MsixTable | null;
  /** By region index. */
  readonly regions: Pick<ReadonlyMap<number, ServedRegion>, 'get'>;
  /** One more than the highest region index. */
  readonly regionCount: number;
  /** By interrupt index. */
  readonly irqs: ReadonlyMap<number, IrqDescription>;
  /** Whether the function has INTx. */
  readonly hasPin: boolean;
  /** Told of what a write to configuration space changed, while a client is there. */
  onConfigured: ((effects: readonly ConfigEffect[]) => Eventually<void>) | null = null;
  /** The client has lost the function, see `Client.unplug`. */
  unplugged = false;
  /** The client has changed the command register. */
  #commanded = false;

  /** @throws TypeError or RangeError for a declaration that contradicts itself */
  constructor({ pci, regions, irqs, passthrough }: PciDeviceModel) {
    const bars = servedBars(pci.bars ?? {});
    const shown = Object.fromEntries([...bars].map(([index, bar]) => [index, shownOf(bar)]));
    this.config = new ConfigSpace({ ...pci, bars: shown });
    const { capabilities = [], interruptPin = 0 } = pci;
    const msix = capabilities.find((capability) => capability.kind === 'msix');
    const msi = capabilities.find((capability) => capability.kind === 'msi');
    this.msix = msix === undefined ? null : new MsixTable(msix);
    const own = new Map<number, ServedRegion>([
      ...[...bars].map(([index, bar]): [number, ServedRegion] => [index, this.msix?.over(index, bar) ?? bar]),
      [PciRegion.config, this.#configRegion()],
    ]);
    this.regions = { get: (index) => regions?.get(index) ?? own.get(index) };
    this.regionCount = Math.max(...own.keys(), ...(regions?.keys() ?? [])) + 1;
    this.hasPin = interruptPin !== 0;
    this.irqs =
      passthrough?.irqs ??
      describeIrqs([
        [PciIrq.intx, this.hasPin ? 1 : 0],
        [PciIrq.msi, msi?.vectors ?? 0],
        [PciIrq.msix, msix?.vectors ?? 0],
        // Without it, QEMU warns that there is no error recovery.
        [PciIrq.err, 1],
        ...(irqs ?? []),
      ]);
  }

  /**
   * Whether the client lets the function reach memory and send messages (PCI Local Bus 3.0, 6.2.2). Bus Master Enable counts from
   * the client's first change of the command register on: drivers set it, but there are clients that never write the register,
   * such as libvfio-user's samples, and these would get no DMA and no interrupt. So it is once more after a DEVICE_RESET: a proxy
   * resets the device between clients of its own, and the next one may be such.
   */
  get busMaster(): boolean {
    if (this.unplugged) return false;
    return !this.#commanded || (this.config.command & PciCommand.busMaster) !== 0;
  }

  /** The client keeps INTx from being signalled. */
  get interruptDisabled(): boolean {
    return (this.config.command & PciCommand.interruptDisable) !== 0;
  }

  /** Puts the registers back to their state after power-on. That the client uses the command register stays known. */
  reset(): void {
    this.config.reset();
    this.msix?.reset();
  }

  /** The client has reset the device, and whoever uses it from now on is not known. */
  begin(): void {
    this.#commanded = false;
  }

  /** The client is gone, and the next one is not known. */
  detach(): void {
    this.onConfigured = null;
    this.unplugged = false;
    this.begin();
    this.reset();
  }

  #configRegion(): ServedRegion {
    const { config } = this;
    return {
      size: config.size,
      read: (offset, data) => {
        data.set(config.read(offset, data.byteLength));
      },
      write: (offset, data) => {
        const effects = config.write(offset, data);
        this.#commanded ||= effects.some(({ kind }) => kind === 'command');
        return effects.length === 0 ? undefined : this.onConfigured?.(effects);
      },
    };
  }
}

/** What configuration space tells of a BAR. */
function shownOf(bar: ServedBar): BarDeclaration {
  if (bar.kind === 'io') return { kind: bar.kind, size: bar.size };
  return { kind: bar.kind, size: bar.size, prefetchable: bar.prefetchable ?? false };
}

/** The BARs that are declared, by index. */
function servedBars(bars: Readonly<Record<number, ServedBar | undefined>>): Map<number, ServedBar> {
  return new Map(declaredBars(bars) as [number, ServedBar][]);
}
