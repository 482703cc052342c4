// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { defineCommand } from './command';
import { inspectDevice, type DeviceReport } from './device-report';
import { formatDeviceReport } from './device-report-text';
import { ENDPOINT_HELP, openEndpoint, type EndpointDevice } from './open-endpoint';
import type { CommandSpec } from './option-spec';
import { hex, print } from './output';
import { VF_TOKEN_OPTION, checkVfToken } from './vf-token';

const SPEC = {
  name: 'info',
  summary: 'Show what a device is: protocol, regions, interrupts, PCI and NVMe identity. Changes nothing.',
  positionals: [{ name: 'endpoint', help: ENDPOINT_HELP }],
  options: {
    json: { type: 'boolean', help: 'Print JSON.' },
    timeout: {
      type: 'duration',
      default: '5',
      min: 0.001,
      max: 86_400,
      help: 'Time to connect, and then for all answers together.',
    },
    'vf-token': VF_TOKEN_OPTION,
  },
} as const satisfies CommandSpec;

/** `vfio-user info` */
export const info = defineCommand(SPEC, async ({ json, timeout, 'vf-token': vfToken }, [endpoint = '']) => {
  checkVfToken(vfToken, [endpoint]);
  const milliseconds = timeout * 1000;
  const patience = { connectTimeout: milliseconds, messageTimeout: milliseconds };
  await using device = await openEndpoint(endpoint, patience, vfToken);
  const report = await withinTime(device, milliseconds);
  print(json ? JSON.stringify(report, jsonValue, 2) : formatDeviceReport(report));
});

/** What a device answers within a time, after which it is closed. */
async function withinTime(device: EndpointDevice, milliseconds: number): Promise<DeviceReport> {
  const deadline = performance.now() + milliseconds;
  const timer = setTimeout(() => void device.close(), milliseconds);
  try {
    return await inspectDevice(device, deadline);
  } catch (error) {
    // A blocking message may have kept the timer from closing it.
    if (performance.now() < deadline) throw error;
    throw new VfioUserError(
      'ERR_VFIO_USER_TIMEOUT',
      `${device.name} did not answer all questions within ${milliseconds} ms; look at its server, or wait longer with --timeout`,
      { cause: error },
    );
  } finally {
    clearTimeout(timer);
  }
}

/** 64-bit values become hexadecimal text, as a JSON number does not hold them; what is not known is null, so that no key is missing. */
function jsonValue(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? hex(value) : (value ?? null);
}
