// SPDX-License-Identifier: MIT
import { connect, type ConnectOptions, type VfioUserDevice } from '../../../lib/client';
import { createBackend } from '../../../lib/nvme/backends';
import { NvmeControllerModel, type NvmeControllerOptions } from '../../../lib/nvme/controller';
import { NvmeController, type NvmeAttachOptions } from '../../../lib/nvme/host';
import { StatusWatch } from '../../../lib/nvme/host/status-watch';
import type { DeviceRegion } from '../../../lib/pci';
import { serve, type ServedRegion } from '../../../lib/server';
import { atEnd } from '../../client/support';

export const NAMESPACE_BYTES = 4 << 20;
let sockets = 0;

/** An emulated controller, served by this process to a device of this process. */
export interface World {
  readonly model: NvmeControllerModel;
  readonly device: VfioUserDevice;
  /** Closes the connection from the server's side. */
  readonly hangUp: () => Promise<void>;
}

export async function served(
  options: Partial<NvmeControllerOptions> = {},
  connectOptions: ConnectOptions = {},
): Promise<World> {
  const model = new NvmeControllerModel({
    ...(options.namespaces === undefined && {
      backend: createBackend({ kind: 'memory', size: NAMESPACE_BYTES }),
    }),
    serial: 'HOST',
    ...options,
  });
  const path = `@vfio-user-nvme-${process.pid}-${++sockets}`;
  const server = await serve(path, model);
  atEnd(async () => {
    await server.close();
    model.close();
  });
  const device = await connect(path, connectOptions);
  atEnd(() => device.close());
  return { model, device, hangUp: () => server.close() };
}

/** An emulated controller like that of {@link served}, brought up. */
export async function attached(
  options: Partial<NvmeControllerOptions> = {},
  attachOptions: NvmeAttachOptions = {},
): Promise<World & { nvme: NvmeController }> {
  const world = await served(options);
  const nvme = await NvmeController.attach(world.device, attachOptions);
  atEnd(() => nvme.close());
  return { ...world, nvme };
}

/** A watch of a controller whose status nobody looks at. */
export function unwatched(): StatusWatch {
  return new StatusWatch({ read32: () => Promise.resolve(1) } as unknown as DeviceRegion);
}

/** Puts a function between the client and the reads of BAR 0. */
export function onRead(model: NvmeControllerModel, change: (offset: number, data: DataView) => void): void {
  const bar = model.pci.bars?.[0] as ServedRegion;
  const read = bar.read!.bind(bar);
  bar.read = (offset, data) => {
    void read(offset, data);
    change(offset, new DataView(data.buffer, data.byteOffset, data.byteLength));
  };
}

/** What is written to a register of BAR 0, from now on. */
export function writesOf(model: NvmeControllerModel, register: number): number[] {
  const bar = model.pci.bars?.[0] as ServedRegion;
  const write = bar.write!.bind(bar);
  const seen: number[] = [];
  bar.write = (offset, data, posted) => {
    if (offset === register) seen.push(new DataView(data.buffer, data.byteOffset).getUint32(0, true));
    return write(offset, data, posted);
  };
  return seen;
}
