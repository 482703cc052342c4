// SPDX-License-Identifier: MIT
// A drive that is encrypted (AES-XTS): npx vfio-user serve nvme --socket nvme.sock --backend examples/encrypted-backend.mjs,file=disk.img,key=disk.key
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { BackendError, BackendResult } from 'vfio-user/nvme';

const SECTOR = 512;

/**
 * The tool gives the default export what stands behind the path of the module: texts.
 * @param {Readonly<Record<string, string>>} options
 * @returns {Promise<import('vfio-user/nvme').BackendImplementation>}
 */
export default async function encryptedBackend({ file = 'disk.img', key: keyFile = 'disk.key' }) {
  const key = await readFile(keyFile); // made by: head -c 64 /dev/urandom >disk.key
  const disk = await open(file, 'r+'); // made by: truncate -s 1G disk.img
  const { size } = await disk.stat();

  /**
   * Encrypts or decrypts whole sectors in their place. The number of a sector is its tweak.
   * @param {typeof createCipheriv | typeof createDecipheriv} create
   * @param {Uint8Array} data
   * @param {number} offset
   */
  function crypt(create, data, offset) {
    const tweak = Buffer.alloc(16);
    for (let at = 0; at < data.length; at += SECTOR) {
      tweak.writeBigUInt64LE(BigInt((offset + at) / SECTOR));
      data.set(create('aes-256-xts', key, tweak).update(data.subarray(at, at + SECTOR)), at);
    }
  }

  return {
    kind: 'encrypted',
    identity: file,
    size,
    blockSize: SECTOR,
    async read(offset, target) {
      const { bytesRead } = await disk.read(target, 0, target.length, offset);
      if (bytesRead < target.length)
        throw new BackendError(BackendResult.mediumError, `${file} is too short`);
      crypt(createDecipheriv, target, offset);
    },
    async write(offset, data) {
      const sealed = Uint8Array.from(data);
      crypt(createCipheriv, sealed, offset);
      await disk.write(sealed, 0, sealed.length, offset);
    },
    flush: () => disk.datasync(),
    close: () => disk.close(),
  };
}
