// SPDX-License-Identifier: MIT
import { connect, type ConnectOptions, type VfioUserDevice } from '../client';
import type { KernelDevice } from '../kernel';
import { isDeviceName } from '../kernel/device-name';
import { openPciIn } from '../kernel/open';
import { isPciAddress } from '../kernel/pci-address';
import { systemRoots } from './system-roots';

/** A device that the command line named: behind a socket, or a PCI device of this machine. */
export type EndpointDevice = VfioUserDevice | KernelDevice;

/** How an endpoint is written, for the help of a command. */
export const ENDPOINT_HELP =
  "Path of the device's socket, or SPDK's directory; the PCI address of a device bound to vfio-pci; or the UUID of a mediated device.";

/**
 * Opens an endpoint. What looks like a PCI address or a UUID is one; a socket of such a name is written with its folder, as
 * `./01:00.0`.
 *
 * @param options for an endpoint behind a socket
 * @param vfToken for a PCI function; a mediated device has none
 */
export function openEndpoint(
  endpoint: string,
  options: ConnectOptions,
  vfToken: string | undefined,
): Promise<EndpointDevice> {
  if (!isDeviceName(endpoint)) return connect(endpoint, options);
  const takesToken = vfToken !== undefined && isPciAddress(endpoint);
  return openPciIn(systemRoots(), endpoint, takesToken ? { vfToken } : {});
}
