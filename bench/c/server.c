// SPDX-License-Identifier: MIT
// server PATH [LOOK]: a vfio-user server to measure clients against. One client after the other, nothing but
// what the measurements need. Prints a line when it listens; ends with the process that started it. When it
// has served what there was, it looks for more for LOOK microseconds, default 0, before it sleeps.
//
// It takes all that the client has sent with one recvmsg(2), and sends its replies together, so that a client
// with many requests in flight does not pay for each with the system calls of one that has one. It answers
// before it looks for more, unless there may be more that this recvmsg(2) could not take, and whenever there
// is a kilobyte of replies.
#define _GNU_SOURCE
#include <linux/vfio.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/un.h>

#include "message.h"

enum {
  kMostMaps = 4096,
  kVectors = 1,
  /** Bytes of replies that are not held back for more: the client takes them while others are made. */
  kEnoughReplies = 1 << 10,
};

struct mapping {
  uint64_t address;
  uint64_t size;
  void* memory;
};

static struct mapping maps[kMostMaps];
static int map_count;
static int bar0_fd;
static uint8_t* bar0;
static uint8_t config[256] = {0x34, 0x12, 0x11, 0x11};
static int event_fd = -1;

static void remove_map(int index) {
  if (maps[index].memory != MAP_FAILED) munmap(maps[index].memory, maps[index].size);
  maps[index] = maps[--map_count];
}

/** Signals the vector `signals` times; the time of each stands in the page that can be mapped. */
static void signal_client(uint32_t signals) {
  uint32_t pause = 0;
  memcpy(&pause, bar0 + kPauseRegister, sizeof(pause));
  volatile int64_t* stamp = (volatile int64_t*)(bar0 + kPage);
  const uint64_t one = 1;
  for (uint32_t signal = 0; signal < signals; signal++) {
    usleep(pause);
    *stamp = nanoseconds();
    if (event_fd < 0 || write(event_fd, &one, sizeof(one)) < 0) return;
  }
}

/** Each function below turns a request into its reply: it returns the size of the payload, or -errno. */

static int version(struct message* message) {
  static const char kJson[] =
      "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,\"max_dma_maps\":4096}}";
  memcpy(message->payload + 4, kJson, sizeof(kJson));
  return 4 + sizeof(kJson);
}

static int get_info(struct message* message) {
  const struct vfio_device_info info = {
      .argsz = 16, .flags = VFIO_DEVICE_FLAGS_PCI, .num_regions = 9, .num_irqs = 5};
  memcpy(message->payload, &info, 16);
  return 16;
}

static int get_region_info(struct message* message) {
  struct vfio_region_info info;
  memcpy(&info, message->payload, sizeof(info));
  info = (struct vfio_region_info){.argsz = sizeof(info), .index = info.index};
  if (info.index == kConfig) {
    info.size = sizeof(config);
    info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  } else if (info.index == kBar0) {
    const struct {
      struct vfio_region_info_cap_sparse_mmap sparse;
      struct vfio_region_sparse_mmap_area area;
    } capability = {
        {.header = {.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1}, .nr_areas = 1},
        {.offset = kPage, .size = kPage},
    };
    info.argsz += sizeof(capability);
    info.size = kBar0Size;
    info.cap_offset = sizeof(info);
    info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP |
                 VFIO_REGION_INFO_FLAG_CAPS;
    memcpy(message->payload + sizeof(info), &capability, sizeof(capability));
    message->fd = bar0_fd;
  }
  memcpy(message->payload, &info, sizeof(info));
  return (int)info.argsz;
}

static int get_irq_info(struct message* message) {
  struct vfio_irq_info info;
  memcpy(&info, message->payload, sizeof(info));
  info.flags = info.index == kMsix ? VFIO_IRQ_INFO_EVENTFD : 0;
  info.count = info.index == kMsix ? kVectors : 0;
  memcpy(message->payload, &info, sizeof(info));
  return sizeof(info);
}

static int set_irqs(struct message* message) {
  if (event_fd >= 0) close(event_fd);
  event_fd = message->fd;
  message->fd = -1;
  return 0;
}

/** The bytes of an access, NULL when there are none. */
static uint8_t* accessed(const struct region_access* access) {
  const uint64_t size = access->region == kBar0 ? kBar0Size : access->region == kConfig ? sizeof(config) : 0;
  if (access->count > size || access->offset > size - access->count) return NULL;
  if (access->count > sizeof(((struct message*)0)->payload) - sizeof(*access)) return NULL;
  return (access->region == kBar0 ? bar0 : config) + access->offset;
}

static int region_read(struct message* message) {
  struct region_access access;
  memcpy(&access, message->payload, sizeof(access));
  const uint8_t* bytes = accessed(&access);
  if (bytes == NULL) return -EINVAL;
  memcpy(message->payload + sizeof(access), bytes, access.count);
  return (int)(sizeof(access) + access.count);
}

static int region_write(struct message* message) {
  struct region_access access;
  memcpy(&access, message->payload, sizeof(access));
  uint8_t* bytes = accessed(&access);
  if (bytes == NULL) return -EINVAL;
  memcpy(bytes, message->payload + sizeof(access), access.count);
  return sizeof(access);
}

static int dma_map(struct message* message) {
  struct dma_map request;
  memcpy(&request, message->payload, sizeof(request));
  if (map_count == kMostMaps) return -EINVAL;
  struct mapping* mapping = &maps[map_count];
  *mapping = (struct mapping){request.address, request.size, MAP_FAILED};
  if (message->fd >= 0) {
    const int protection = PROT_READ | PROT_WRITE;
    mapping->memory = mmap(NULL, request.size, protection, MAP_SHARED, message->fd, (off_t)request.offset);
    if (mapping->memory == MAP_FAILED) return -errno;
  }
  map_count++;
  return 0;
}

static int dma_unmap(struct message* message) {
  struct dma_unmap request;
  memcpy(&request, message->payload, sizeof(request));
  for (int index = 0; index < map_count; index++) {
    if (maps[index].address != request.address || maps[index].size != request.size) continue;
    remove_map(index);
    return sizeof(request);
  }
  return -ENOENT;
}

static int handle(struct message* message) {
  switch (message->header.command) {
    case kVersion:
      return version(message);
    case kGetInfo:
      return get_info(message);
    case kGetRegionInfo:
      return get_region_info(message);
    case kGetIrqInfo:
      return get_irq_info(message);
    case kSetIrqs:
      return set_irqs(message);
    case kRegionRead:
      return region_read(message);
    case kRegionWrite:
      return region_write(message);
    case kDmaMap:
      return dma_map(message);
    case kDmaUnmap:
      return dma_unmap(message);
    default:
      return -ENOTSUP;
  }
}

/** Replies without descriptors that wait to be sent. */
static uint8_t replies[16 << 10];
static size_t replies_size;

static void send_replies(int sock) {
  if (replies_size > 0) send_bytes(sock, replies, replies_size, -1);
  replies_size = 0;
}

static void reply(int sock, const struct message* message) {
  const size_t size = message->header.size;
  if (message->fd >= 0 || replies_size + size > sizeof(replies)) send_replies(sock);
  if (message->fd >= 0) {
    send_message(sock, message);
  } else {
    memcpy(replies + replies_size, message, size);
    replies_size += size;
    if (replies_size >= kEnoughReplies) send_replies(sock);
  }
}

static void serve_message(int sock, struct message* message) {
  struct header* header = &message->header;
  struct region_access access;
  memcpy(&access, message->payload, sizeof(access));
  uint32_t value = 0;
  memcpy(&value, message->payload + sizeof(access), sizeof(value));
  const int begins =
      header->command == kRegionWrite && access.region == kBar0 && access.offset == kSignalsRegister;

  const int received = message->fd;
  const int size = handle(message);
  // A descriptor of the client's is mapped, or kept, or not needed.
  if (received >= 0 && received != event_fd) close(received);
  if (message->fd == received) message->fd = -1;
  if ((header->flags & kNoReply) == 0) {
    header->flags = size < 0 ? kReply | kError : kReply;
    header->error = size < 0 ? (uint32_t)-size : 0;
    header->size = (uint32_t)(sizeof(*header) + (size < 0 ? 0 : (size_t)size));
    reply(sock, message);
  }
  if (begins) {
    send_replies(sock);
    signal_client(value);
  }
}

/** What was received at once; behind it, room for the rest of a message that is cut. */
static uint8_t input[(64 << 10) + sizeof(struct message)];

/**
 * Serves the first `have` bytes of `input`; 0 when the client has gone. `fd` is of the last message in them,
 * as a recvmsg(2) that takes a descriptor takes nothing behind it (unix(7)).
 */
static int serve_input(int sock, size_t have, int fd) {
  static struct message message;
  for (size_t start = 0; start < have;) {
    uint8_t* bytes = input + start;
    size_t there = have - start;
    if (!receive_part(sock, bytes, there, sizeof(struct header), &fd)) return 0;
    if (there < sizeof(struct header)) there = sizeof(struct header);
    memcpy(&message.header, bytes, sizeof(struct header));
    const size_t size = message.header.size;
    if (size < sizeof(struct header) || size > sizeof(struct header) + sizeof(message.payload)) return 0;
    if (!receive_part(sock, bytes, there, size, &fd)) return 0;
    memcpy(message.payload, bytes + sizeof(struct header), size - sizeof(struct header));
    start += size;
    message.fd = start >= have ? fd : -1;
    serve_message(sock, &message);
  }
  return 1;
}

/** As receive(), of one that looks before it sleeps. */
static ssize_t await_input(int sock, size_t room, int64_t look, int* fd) {
  for (const int64_t end = nanoseconds() + look; look > 0 && nanoseconds() < end;) {
    const ssize_t count = receive(sock, input, room, MSG_DONTWAIT, fd);
    if (count >= 0) return count;
  }
  return receive(sock, input, room, 0, fd);
}

static void serve(int sock, int64_t look) {
  const size_t room = sizeof(input) - sizeof(struct message);
  // Whether more may wait: behind a descriptor, or because there was no room for it.
  int more = 0;
  for (;;) {
    int fd = -1;
    ssize_t count = more ? receive(sock, input, room, MSG_DONTWAIT, &fd) : -1;
    if (count < 0) {
      send_replies(sock);
      count = await_input(sock, room, look, &fd);
    }
    more = fd >= 0 || count == (ssize_t)room;
    if (count <= 0 || !serve_input(sock, (size_t)count, fd)) return;
  }
}

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3 || strlen(argv[1]) >= sizeof(((struct sockaddr_un*)0)->sun_path)) {
    fprintf(stderr, "usage: server PATH [LOOK]\n");
    return 2;
  }
  const int64_t look = argc > 2 ? (int64_t)atoi(argv[2]) * 1000 : 0;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  bar0_fd = memfd_create("bar0", MFD_CLOEXEC);
  if (bar0_fd < 0 || ftruncate(bar0_fd, kBar0Size) < 0) die("memfd_create");
  bar0 = mmap(NULL, kBar0Size, PROT_READ | PROT_WRITE, MAP_SHARED, bar0_fd, 0);
  if (bar0 == MAP_FAILED) die("mmap");

  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, argv[1]);
  if (bind(listener, (struct sockaddr*)&address, sizeof(address)) < 0 || listen(listener, 4) < 0) die("bind");
  puts("listening");
  fflush(stdout);
  for (;;) {
    const int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (sock < 0) die("accept");
    serve(sock, look);
    close(sock);
    replies_size = 0;
    while (map_count > 0) remove_map(map_count - 1);
    if (event_fd >= 0) close(event_fd);
    event_fd = -1;
  }
}
