// SPDX-License-Identifier: MIT
// What server.c and client.c share: messages as the vfio-user specification lays them out
// (docs/interop/vfio-user.rst of qemu/qemu; structures of <linux/vfio.h> are taken from there), and blocking
// transfer of one message.
#ifndef MICRO_MESSAGE_H_
#define MICRO_MESSAGE_H_

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  kVersion = 1,
  kDmaMap = 2,
  kDmaUnmap = 3,
  kGetInfo = 4,
  kGetRegionInfo = 5,
  kGetIrqInfo = 7,
  kSetIrqs = 8,
  kRegionRead = 9,
  kRegionWrite = 10,
};

enum { kReply = 1, kNoReply = 1 << 4, kError = 1 << 5 };

/** The device of server.c: BAR 0 has a page of registers, then a page that can be mapped. */
enum {
  kBar0 = 0,
  kConfig = 7,
  kMsix = 2,
  kPage = 4096,
  kBar0Size = 2 * kPage,
  /** Registers of 32 bits: microseconds before each signal, and how many signals; writing the latter begins.
   */
  kPauseRegister = 0,
  kSignalsRegister = 4,
};

struct header {
  uint16_t id;
  uint16_t command;
  uint32_t size;
  uint32_t flags;
  uint32_t error;
};

struct region_access {
  uint64_t offset;
  uint32_t region;
  uint32_t count;
};

struct dma_map {
  uint32_t argsz;
  uint32_t flags;
  uint64_t offset;
  uint64_t address;
  uint64_t size;
};

struct dma_unmap {
  uint32_t argsz;
  uint32_t flags;
  uint64_t address;
  uint64_t size;
};

/** A message with the descriptor that came or goes with it, -1 for none. */
struct message {
  struct header header;
  uint8_t payload[4096];
  int fd;
};

static inline int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static inline _Noreturn void die(const char* what) {
  perror(what);
  exit(1);
}

/** Sends `size` bytes, and a descriptor unless it is -1. A socket that blocks takes all of it. */
static inline void send_bytes(int sock, const void* bytes, size_t size, int fd) {
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec part = {(void*)bytes, size};
  struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd >= 0) {
    msg.msg_control = control;
    msg.msg_controllen = sizeof(control);
    struct cmsghdr* rights = CMSG_FIRSTHDR(&msg);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  }
  if (sendmsg(sock, &msg, MSG_NOSIGNAL) != (ssize_t)size) die("sendmsg");
}

/** Sends a message and its descriptor. */
static inline void send_message(int sock, const struct message* message) {
  send_bytes(sock, message, message->header.size, message->fd);
}

/**
 * One recvmsg(2) of up to `size` bytes: how many came, 0 at the end of the stream, -1 when nothing is there
 * and `flags` say not to wait. A descriptor that comes along is stored.
 */
static inline ssize_t receive(int sock, void* bytes, size_t size, int flags, int* fd) {
  char control[CMSG_SPACE(sizeof(int))];
  struct iovec part = {bytes, size};
  struct msghdr msg = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  ssize_t count = 0;
  do {
    count = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count < 0 && errno == EAGAIN) return -1;
  if (count < 0 && errno != ECONNRESET) die("recvmsg");
  if (count <= 0) return 0;
  const struct cmsghdr* rights = CMSG_FIRSTHDR(&msg);
  if (rights != NULL && rights->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(rights), sizeof(int));
  return count;
}

/** Receives bytes `[have, until)`; 0 at the end of the stream. */
static inline int receive_part(int sock, void* bytes, size_t have, size_t until, int* fd) {
  while (have < until) {
    const ssize_t count = receive(sock, (char*)bytes + have, until - have, 0, fd);
    if (count <= 0) return 0;
    have += (size_t)count;
  }
  return 1;
}

#endif  // MICRO_MESSAGE_H_
