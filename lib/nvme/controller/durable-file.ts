// SPDX-License-Identifier: MIT
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

/** What a file is called until it takes the place of the one that it is to replace. */
export const REPLACEMENT = '.new';

/**
 * Replaces a small text file, or makes it: after a crash at any moment it has all of the old text or all of the new one, and once this
 * has resolved, the new one. Rejects with the error of the file system.
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  const replacement = `${path}${REPLACEMENT}`;
  const file = await open(replacement, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(replacement, path);
  await syncFolder(dirname(path));
}

/** Makes an empty file that reads as zeros, durably but for its name. Rejects when it is there already. */
export async function makeSparseFile(path: string, size: number): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.truncate(size);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Makes durable which names there are in a folder. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
