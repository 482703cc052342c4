// SPDX-License-Identifier: MIT
import { PreloadedLibrary, testWithCompiler } from './preloaded-library';
import { cleanEnd, runScript } from './run-script';

testWithCompiler('an eventfd of a peer that reads it with blocking calls does not block us', () => {
  // Kernels before 5.8 do not know RWF_NOWAIT for eventfds.
  using library = new PreloadedLibrary(`
    #include <errno.h>
    #include <fcntl.h>
    #include <stdlib.h>
    #include <sys/eventfd.h>
    #include <sys/types.h>
    #include <sys/uio.h>
    ssize_t preadv2(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
      errno = EOPNOTSUPP;
      return -1;
    }
    ssize_t preadv64v2(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
      return preadv2(fd, parts, count, offset, flags);
    }
    __attribute__((constructor)) static void start(void) { fcntl(eventfd(0, 0), F_DUPFD, 200); }`);
  const body = `
    const event = EventFd.fromFd(200);
    const flags = parseInt(/flags:\\s*(\\d+)/.exec(fs.readFileSync('/proc/self/fdinfo/200', 'utf8'))[1], 8);
    console.log((flags & fs.constants.O_NONBLOCK) === 0);
    console.log(event.read());
    event.signal(3);
    console.log(event.read(), event.read());
    let count = 0;
    event.watch((signals) => { count = signals; event.close(); });
    event.signal(2);
    while (count === 0) await turn();
    console.log(count);
  `;
  expect(runScript(body, library.environment)).toEqual(cleanEnd('true\n0\n3 0\n2'));
});
