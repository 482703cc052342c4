// SPDX-License-Identifier: MIT
/** What a plan refuses of a controller that lacks something, which the emulated one does not. */
import { pickNamespace, planJobs } from '../../lib/bench/plan';
import type { NvmeController, NvmeNamespace } from '../../lib/nvme/host';

const shape = { id: 1, blockSize: 512, size: 1 << 20 };
const namespace = { ...shape, format: { ms: 0 } } as unknown as NvmeNamespace;
const controller = {
  device: { name: 'drive' },
  namespaces: [],
  namespace: () => ({ ...shape, format: { ms: 8 } }),
  // ONCS without bit 2 (NVMe base 2.0, figure 275).
  identify: { oncs: 0xffff & ~4 },
  maxTransferSize: 131072,
  capabilities: { maxQueueEntries: 1024 },
} as unknown as NvmeController;

test.each(['trim', 'randtrim', 'trimwrite'] as const)(
  '%s at a controller without deallocation',
  (workload) => {
    const options = { workload, blockSize: 4096, depth: 1, jobs: 1, runtime: 1, verify: false, seed: 1 };
    expect(() => planJobs(controller, namespace, options, {}, 0)).toThrow(
      expect.objectContaining({
        code: 'ERR_VFIO_USER_UNSUPPORTED',
        message: 'drive does not take trims: its ONCS is without Dataset Management',
      }),
    );
  },
);

test('a controller without namespaces, and a namespace with metadata', () => {
  expect(() => pickNamespace(controller, undefined)).toThrow(/drive has no active namespace to measure/);
  expect(() => pickNamespace(controller, 1)).toThrow(/namespace 1 has 8 bytes of metadata per block/);
});
