// SPDX-License-Identifier: MIT
import { type Backend, createBackend } from '../nvme/backends';
import type { BackendText } from './backend-text';

/** Opens a backend that the command line told of. */
export function openBackend(text: BackendText): Promise<Backend> {
  return new Promise((resolve) => {
    resolve(createBackend(text));
  });
}
