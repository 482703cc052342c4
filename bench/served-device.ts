// SPDX-License-Identifier: MIT
// served-device PATH [SPIN]: a device with one register in BAR 2, where libvfio-user's GPIO sample has its own. bench/micro.ts
// measures what a client waits for it. It says so when it listens.
import { RegisterFile, serve } from 'vfio-user/server';

async function main([path = '', spin]: readonly string[]): Promise<void> {
  const registers = new RegisterFile({ size: 0x1000, registers: { pins: { offset: 0, width: 32 } } });
  const server = await serve(
    path,
    {
      name: 'device of the benchmark',
      pci: {
        vendorId: 0x494f,
        deviceId: 0x0dc8,
        classCode: 0x088000,
        bars: { 2: { kind: 'memory32', ...registers.region } },
      },
    },
    spin === undefined ? {} : { spin: Number(spin) },
  );
  console.log(server.path);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
