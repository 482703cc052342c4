// SPDX-License-Identifier: MIT
// client WHAT PATH COUNT [PAUSE]: a plain blocking vfio-user client. Measures one thing and prints its times
// in nanoseconds: one number a line for each of COUNT round trips, interrupts or 100,000 loads, else one
// number for all.
#define _GNU_SOURCE
#include <linux/vfio.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/un.h>

#include "message.h"

enum { kLoads = 100000 };
/** Word of the mapped page that the server leaves 0. */
enum { kZeroWord = 512 };
/** Signals that come first, and are not measured: the other client's handler is compiled by then. */
enum { kWarmUpSignals = 3000, kWarmUpPause = 30 };

static int sock;
static struct message message;

/**
 * Sends a request and waits for its reply, which takes its place in `message`. With one request in flight the
 * next bytes are its reply, so that one recvmsg(2) takes all of it.
 */
static void exchange(uint16_t command, uint32_t payload_size, int fd) {
  static uint16_t id;
  message.header = (struct header){++id, command, (uint32_t)sizeof(struct header) + payload_size, 0, 0};
  message.fd = fd;
  send_message(sock, &message);

  message.fd = -1;
  const size_t room = sizeof(struct header) + sizeof(message.payload);
  const ssize_t count = receive(sock, &message, room, 0, &message.fd);
  if (count < (ssize_t)sizeof(struct header) || message.header.size > room ||
      !receive_part(sock, &message, (size_t)count, message.header.size, &message.fd)) {
    die("reply");
  }
  if (message.header.id != id || message.header.command != command ||
      (message.header.flags & (kReply | kError)) != kReply) {
    fprintf(stderr, "command %u failed with errno %u\n", command, message.header.error);
    exit(1);
  }
}

static void negotiate(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof(address.sun_path)) {
    errno = ENAMETOOLONG;
    die(path);
  }
  strcpy(address.sun_path, path);
  sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(sock, (struct sockaddr*)&address, sizeof(address)) < 0) die("connect");
  static const char kRequest[] =
      "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}";
  memcpy(message.payload, kRequest, sizeof(kRequest));
  exchange(kVersion, sizeof(kRequest), -1);
}

static uint32_t read_register(uint32_t region, uint64_t offset) {
  const struct region_access access = {offset, region, sizeof(uint32_t)};
  memcpy(message.payload, &access, sizeof(access));
  exchange(kRegionRead, sizeof(access), -1);
  struct region_access answer;
  memcpy(&answer, message.payload, sizeof(answer));
  if (answer.offset != offset || answer.region != region || answer.count != sizeof(uint32_t))
    die("region read");
  uint32_t value = 0;
  memcpy(&value, message.payload + sizeof(answer), sizeof(value));
  return value;
}

static void write_register(uint32_t region, uint64_t offset, uint32_t value) {
  const struct region_access access = {offset, region, sizeof(value)};
  memcpy(message.payload, &access, sizeof(access));
  memcpy(message.payload + sizeof(access), &value, sizeof(value));
  exchange(kRegionWrite, sizeof(access) + sizeof(value), -1);
}

/** The page of BAR 0 that can be mapped. */
static void* map_bar0(void) {
  const struct vfio_region_info request = {.argsz = sizeof(message.payload), .index = kBar0};
  memcpy(message.payload, &request, sizeof(request));
  exchange(kGetRegionInfo, sizeof(request), -1);
  void* page = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, message.fd, kPage);
  if (page == MAP_FAILED) die("mmap");
  return page;
}

static void measure_reads(int count, uint32_t region) {
  int64_t* times = calloc((size_t)count, sizeof(*times));
  int64_t start = nanoseconds();
  for (int i = 0; i < count; i++) {
    read_register(region, 0);
    const int64_t end = nanoseconds();
    times[i] = end - start;
    start = end;
  }
  for (int i = 0; i < count; i++) printf("%lld\n", (long long)times[i]);
}

static void measure_all_reads(int count) {
  const int64_t start = nanoseconds();
  for (int i = 0; i < count; i++) read_register(kConfig, 0);
  printf("%lld\n", (long long)(nanoseconds() - start));
}

/** Each function reads kLoads registers. */

/** Eight in a turn of the loop, so that reads are timed and not the loop. */
static uint32_t load_eights(const volatile uint32_t* registers) {
  uint32_t value = 0;
  for (int load = 0; load < kLoads; load += 8) {
    value ^= registers[0];
    value ^= registers[1];
    value ^= registers[2];
    value ^= registers[3];
    value ^= registers[4];
    value ^= registers[5];
    value ^= registers[6];
    value ^= registers[7];
  }
  return value;
}

static uint32_t load_singly(const volatile uint32_t* registers) {
  uint32_t value = 0;
  for (int load = 0; load < kLoads; load++) value ^= registers[0];
  return value;
}

/** Each begins when the one before has its value, as when a program acts by what it read. */
static uint32_t load_chained(const volatile uint32_t* registers) {
  uint32_t value = 0;
  for (int load = 0; load < kLoads; load++) value = registers[kZeroWord + value];
  return value;
}

/** Times of `count` runs: short, so that what else runs on the processor is not in most of them. */
static void measure_loads(int count, uint32_t (*load)(const volatile uint32_t* registers)) {
  const volatile uint32_t* registers = map_bar0();
  int64_t* times = calloc((size_t)count, sizeof(*times));
  for (int i = 0; i < count; i++) {
    const int64_t start = nanoseconds();
    const uint32_t value = load(registers);
    times[i] = nanoseconds() - start;
    // The value has to be had somewhere.
    __asm__ volatile("" : : "r"(value));
  }
  for (int i = 0; i < count; i++) printf("%lld\n", (long long)times[i]);
}

/** Has the server signal `count` times, `pause` microseconds apart; the times until each was seen, and how
 * many. */
static int take_interrupts(int event_fd, const volatile int64_t* stamp, int count, int pause,
                           int64_t* times) {
  write_register(kBar0, kPauseRegister, (uint32_t)pause);
  write_register(kBar0, kSignalsRegister, (uint32_t)count);
  int taken = 0;
  for (int signals = 0; signals < count;) {
    struct pollfd ready = {event_fd, POLLIN, 0};
    if (poll(&ready, 1, 5000) != 1) die("poll");
    uint64_t counter = 0;
    if (read(event_fd, &counter, sizeof(counter)) < 0) die("read");
    times[taken++] = nanoseconds() - *stamp;
    signals += (int)counter;
  }
  return taken;
}

static void measure_interrupts(int count, int pause) {
  const volatile int64_t* stamp = map_bar0();
  const int event_fd = eventfd(0, EFD_CLOEXEC);
  const struct vfio_irq_set request = {
      .argsz = sizeof(request),
      .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
      .index = kMsix,
      .count = 1,
  };
  memcpy(message.payload, &request, sizeof(request));
  exchange(kSetIrqs, sizeof(request), event_fd);
  const int most = count > kWarmUpSignals ? count : kWarmUpSignals;
  int64_t* times = calloc((size_t)most, sizeof(*times));
  take_interrupts(event_fd, stamp, kWarmUpSignals, kWarmUpPause, times);
  const int taken = take_interrupts(event_fd, stamp, count, pause, times);
  for (int i = 0; i < taken; i++) printf("%lld\n", (long long)times[i]);
}

static void measure_maps(int count) {
  const int memory = memfd_create("dma", MFD_CLOEXEC);
  if (memory < 0 || ftruncate(memory, (off_t)count * kPage) < 0) die("memfd_create");
  const int64_t start = nanoseconds();
  for (int i = 0; i < count; i++) {
    const uint64_t offset = (uint64_t)i * kPage;
    const struct dma_map request = {sizeof(request), 3, offset, (1ULL << 40) + offset, kPage};
    memcpy(message.payload, &request, sizeof(request));
    exchange(kDmaMap, sizeof(request), memory);
  }
  printf("%lld\n", (long long)(nanoseconds() - start));
}

int main(int argc, char** argv) {
  const int count = argc >= 4 ? atoi(argv[3]) : 0;
  const int more = argc >= 5 ? atoi(argv[4]) : 0;
  if (count < 1) {
    fprintf(stderr,
            "usage: client read|reads|loads|single-loads|chained-loads|maps PATH COUNT\n"
            "       client bar-read PATH COUNT REGION\n"
            "       client interrupts PATH COUNT PAUSE\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  negotiate(argv[2]);
  if (strcmp(argv[1], "read") == 0) {
    measure_reads(count, kConfig);
  } else if (strcmp(argv[1], "bar-read") == 0) {
    measure_reads(count, (uint32_t)more);
  } else if (strcmp(argv[1], "reads") == 0) {
    measure_all_reads(count);
  } else if (strcmp(argv[1], "loads") == 0) {
    measure_loads(count, load_eights);
  } else if (strcmp(argv[1], "single-loads") == 0) {
    measure_loads(count, load_singly);
  } else if (strcmp(argv[1], "chained-loads") == 0) {
    measure_loads(count, load_chained);
  } else if (strcmp(argv[1], "interrupts") == 0) {
    measure_interrupts(count, more);
  } else if (strcmp(argv[1], "maps") == 0) {
    measure_maps(count);
  } else {
    fprintf(stderr, "nothing to measure is called %s\n", argv[1]);
    return 2;
  }
  return 0;
}
