// SPDX-License-Identifier: MIT
import { EventFd, closeFd } from '../native';
import type { SetIrqsRequest } from '../protocol';
import { CommandError, Errno, type FdList } from '../transport';

/**
 * Checks a DEVICE_SET_IRQS (vfio-user, VFIO_USER_DEVICE_SET_IRQS) and takes the eventfds that came with it.
 *
 * @param vectors that the index has
 * @param maxDescriptor see `ProcessLimits`
 * @returns one eventfd for each vector that is meant, or none: then theirs are taken away. They are the caller's
 * @throws CommandError EINVAL, or EMFILE when too many descriptors are open; nothing was taken then
 */
export function takeSetIrqs(
  { index, data, action, start, count }: Readonly<SetIrqsRequest>,
  fds: FdList,
  vectors: number,
  maxDescriptor: number,
): EventFd[] {
  if (fds.length > 0 && data !== 'eventfd')
    throw new CommandError(Errno.EINVAL, `${fds.length} file descriptors, but data are not eventfds`);
  if (start >= vectors || start + count > vectors) {
    throw new CommandError(
      Errno.EINVAL,
      `vectors ${start} to ${start + count} of interrupt index ${index}, which has ${vectors}`,
    );
  }
  if (count === 0 && (data !== 'none' || action !== 'trigger' || start !== 0))
    throw new CommandError(Errno.EINVAL, 'no vectors, but not the form that disables an interrupt index');
  if (fds.length !== 0 && fds.length !== count)
    throw new CommandError(Errno.EINVAL, `${fds.length} eventfds for ${count} vectors`);
  return adopt(fds, maxDescriptor);
}

/** Takes all descriptors, or none of them when there are too many or one is no eventfd. */
function adopt(fds: FdList, maxDescriptor: number): EventFd[] {
  const eventFds: EventFd[] = [];
  for (let i = 0; i < fds.length; i++) {
    const fd = fds.take(i);
    if (fd === undefined) continue;
    try {
      if (fd >= maxDescriptor)
        throw new CommandError(Errno.EMFILE, `${fd} descriptors are open, no more are kept for clients`);
      eventFds.push(EventFd.fromFd(fd));
    } catch (error) {
      closeFd(fd);
      for (const eventFd of eventFds) eventFd.close();
      if (error instanceof CommandError) throw error;
      throw new CommandError(Errno.EINVAL, `descriptor ${i} of ${fds.length} is no eventfd`);
    }
  }
  return eventFds;
}
