// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { errnoName, systemError } from '../lib/errors';
import { DmaContainer } from '../lib/dma/container';
import { disconnectedError } from '../lib/transport/errors';
import { failure } from './support/errors';

const { EACCES, EMFILE, ENOMEM } = constants.errno;

test('errnos have their names', () => {
  expect([0, EMFILE, 12345].map(errnoName)).toEqual(['no errno', 'EMFILE', 'errno 12345']);
});

test('a failed system call tells what to do, where that is known', () => {
  expect(systemError('open', EACCES, 'Opening it').message).toBe('Opening it: open failed with EACCES');
  expect(systemError('open', EMFILE, 'Opening it').message).toBe(
    'Opening it: open failed with EMFILE; this process may open no more descriptors, raise its limit (ulimit -n)',
  );
  expect(systemError('mmap', ENOMEM, 'Mapping it', 'free some')).toMatchObject({
    message: 'Mapping it: mmap failed with ENOMEM; free some',
    errno: ENOMEM,
    syscall: 'mmap',
  });
});

test('who runs out of descriptors does not blame the peer', () => {
  const cause = systemError('recvmsg', EMFILE, 'Receiving the descriptors of a message');
  const error = disconnectedError('/run/device.sock', false, cause);
  expect(error).toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED', errnoName: 'EMFILE', cause });
  expect(error.message).toMatch(/^the connection to \/run\/device\.sock was given up: .*raise its limit/);
  const closed = disconnectedError('/run/device.sock', false, undefined);
  expect(closed.message).toMatch(/^\/run\/device\.sock closed the connection; /);
});

test('a lack of huge pages is told as such', async () => {
  // More than any machine that runs the tests has reserved.
  const container = new DmaContainer({ hugePages: 'always' });
  await expect(container.allocate(2 ** 32 - 2 ** 21)).rejects.toMatchObject(
    failure('ERR_VFIO_USER_SYSTEM', 'no free huge page (vm.nr_hugepages)'),
  );
  container.close();
});
