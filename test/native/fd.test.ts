// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  closeFd,
  createSharedMemory,
  duplicateFd,
  fileSize,
  lockFile,
  pageSize,
  zeroRange,
} from '../../lib/native';

const closeOnExec = 0o2000000;

function flagsOf(fd: number): number {
  return parseInt(/^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '', 8);
}

test('a duplicate is another descriptor of the same file, closed on exec', () => {
  const fd = openSync(__filename, 'r');
  const copy = duplicateFd(fd);
  closeSync(fd);
  expect(copy).toBeGreaterThan(2);
  expect(fileSize(copy)).toBe(readFileSync(__filename).length);
  expect(flagsOf(copy) & closeOnExec).toBe(closeOnExec);
  closeFd(copy);
  expect(() => fileSize(copy)).toThrow(
    expect.objectContaining({ code: 'ERR_VFIO_USER_SYSTEM', errnoName: 'EBADF' }),
  );
});

test.each([closeFd, duplicateFd, fileSize])('%p tells a descriptor that is not open', (call) => {
  expect(() => {
    call(0x7fffffff);
  }).toThrow(
    expect.objectContaining({
      code: 'ERR_VFIO_USER_SYSTEM',
      errnoName: 'EBADF',
      syscall: expect.any(String) as string,
    }),
  );
});

test.each([-1, 0.5, NaN, 2 ** 31])('%p is no descriptor', (fd) => {
  for (const call of [closeFd, duplicateFd, fileSize]) {
    expect(() => {
      call(fd);
    }).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  }
});

test('a file or folder is locked by one descriptor at a time, until that is closed', () => {
  for (const path of [__filename, __dirname]) {
    const [first, second] = [openSync(path, 'r'), openSync(path, 'r')];
    expect([lockFile(first, path), lockFile(second, path), lockFile(first, path)]).toEqual([
      true,
      false,
      true,
    ]);
    closeSync(first);
    expect(lockFile(second, path)).toBe(true);
    closeSync(second);
  }
  expect(() => lockFile(0x7fffffff, 'nothing')).toThrow('Locking nothing: flock failed with EBADF');
});

test('what the addon does not own is not closed', () => {
  const fd = openSync(__filename, 'r');
  expect(() => {
    closeFd(fd);
  }).toThrow(expect.objectContaining({ errnoName: 'EBADF', syscall: 'close' }));
  closeSync(fd);
});

test.each([true, false])('bytes become zero, and the size stays (deallocated: %p)', (deallocate) => {
  const folder = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  const path = join(folder, 'file');
  const fd = openSync(path, 'w+');
  writeSync(fd, 'abcdefgh');
  expect(zeroRange(fd, 2, 3, deallocate)).toBe(0);
  expect(zeroRange(fd, 100, 4096, deallocate)).toBe(0);
  expect(readFileSync(path, 'latin1')).toBe('ab\0\0\0fgh');
  closeSync(fd);
  rmSync(folder, { recursive: true });
});

test('zeroing tells what cannot be zeroed, by its errno', () => {
  const { EBADF, EINVAL, ENODEV, EOPNOTSUPP } = constants.errno;
  expect(zeroRange(0x7fffffff, 0, 1, true)).toBe(EBADF);
  const fd = createSharedMemory(4096);
  expect(zeroRange(fd, 0, 0, true)).toBe(EINVAL);
  expect(zeroRange(fd, 0, 4096, false)).toBe(EOPNOTSUPP);
  closeFd(fd);
  const device = openSync('/dev/null', 'r+');
  expect(zeroRange(device, 0, 1, true)).toBe(ENODEV);
  closeSync(device);
  expect(() => zeroRange(-1, 0, 1, true)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
});

test('the page size is the one of the system', () => {
  expect(pageSize).toBe(Number(execFileSync('getconf', ['PAGESIZE'], { encoding: 'utf8' })));
});
