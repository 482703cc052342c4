// SPDX-License-Identifier: MIT
import { connect } from '../client';
import { defineCommand } from './command';
import { inspectDevice } from './device-report';
import { formatDeviceReport } from './device-report-text';
import type { CommandSpec } from './options';
import { print } from './output';

const SPEC = {
  name: 'info',
  summary: 'Show what a device is: protocol, regions, interrupts, PCI and NVMe identity. Changes nothing.',
  positionals: [{ name: 'endpoint', help: "Path of the device's socket, or SPDK's directory." }],
  options: {
    json: { type: 'boolean', help: 'Print JSON.' },
    timeout: {
      type: 'duration',
      default: '5',
      min: 0.001,
      max: 86_400,
      help: 'Time to connect, and for each answer.',
    },
  },
} as const satisfies CommandSpec;

/** `vfio-user info` */
export const info = defineCommand(SPEC, async ({ json, timeout }, [endpoint = '']) => {
  const milliseconds = timeout * 1000;
  await using device = await connect(endpoint, {
    connectTimeout: milliseconds,
    messageTimeout: milliseconds,
  });
  const report = await inspectDevice(device);
  // 64-bit values are hexadecimal text: a JSON number does not hold them.
  const text = json
    ? JSON.stringify(report, (_, value: unknown) => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value), 2)
    : formatDeviceReport(report);
  print(text);
});
