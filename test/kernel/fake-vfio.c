// SPDX-License-Identifier: MIT
/*
 * A kernel's VFIO for tests: a library that is loaded before the C library answers the ioctls of VFIO and of an iommufd as one
 * device would, and writes down what it was asked. Numbers and offsets are those of linux/vfio.h and linux/iommufd.h of
 * Linux 6.17, by which what the addon has is tested: nothing here is taken from it.
 *
 * FAKE_VFIO_LOG   file that gets a line for each ioctl: its name, and the bytes of its structure
 * FAKE_VFIO_FAIL  "NAME=errno NAME=errno …": what fails, and how; OPEN for nodes of VFIO
 * FAKE_VFIO_LACKS "NAME NAME …": what the kernel, the device or its IOMMU does not have: MIGRATION, LOGGING, IOMMU_LOGGING,
 *                 FLAG_RESET: it does not say that it has a reset
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VFIO(number) ((unsigned long)(';' << 8 | (100 + (number))))
#define IOMMU(number) ((unsigned long)(';' << 8 | (number)))

static uint32_t get32(const uint8_t *at) { uint32_t value; memcpy(&value, at, 4); return value; }
static uint64_t get64(const uint8_t *at) { uint64_t value; memcpy(&value, at, 8); return value; }
static void put16(uint8_t *at, uint16_t value) { memcpy(at, &value, 2); }
static void put32(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); }
static void put64(uint8_t *at, uint64_t value) { memcpy(at, &value, 8); }

/** Writes down an ioctl. A pointer has other bits each time, so that `zeroed`, where one is, is written as its absence or presence. */
static void note(const char *name, const uint8_t *bytes, size_t length, size_t pointer) {
  const char *path = getenv("FAKE_VFIO_LOG");
  if (path == NULL) return;
  char line[2048];
  int at = snprintf(line, sizeof(line), "%s ", name);
  for (size_t i = 0; i < length && at < 2000; i++) {
    if (pointer != 0 && i == pointer) {
      at += snprintf(line + at, sizeof(line) - at, get64(bytes + i) == 0 ? "[null]" : "[pointer]");
      i += 7;
    } else {
      at += snprintf(line + at, sizeof(line) - at, "%02x", bytes[i]);
    }
  }
  line[at++] = '\n';
  const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) abort();
  if (write(fd, line, at) != at) abort();
  close(fd);
}

/** The errno by which something is to fail, 0 for none. */
static int failure(const char *name) {
  const char *failures = getenv("FAKE_VFIO_FAIL");
  char key[64];
  snprintf(key, sizeof(key), "%s=", name);
  const char *found = failures == NULL ? NULL : strstr(failures, key);
  return found == NULL ? 0 : atoi(found + strlen(key));
}

static int lacks(const char *name) {
  const char *lacking = getenv("FAKE_VFIO_LACKS");
  char key[64];
  snprintf(key, sizeof(key), " %s ", name);
  char padded[256];
  snprintf(padded, sizeof(padded), " %s ", lacking == NULL ? "" : lacking);
  return strstr(padded, key) != NULL;
}

static int fail(int error) {
  errno = error;
  return -1;
}

/** enum vfio_device_mig_state; RUNNING at first. */
static uint32_t state = 2;
/** The state that was written, or is read. */
static int saved = -1;
static int logging;

/** Sets bit 1 of a bitmap, and its last one. */
static void markPages(const uint8_t *range, uint64_t bitmap) {
  const uint64_t length = get64(range + 8), page = get64(range + 16), last = (length - 1) / page;
  uint8_t *bits = (uint8_t *)(uintptr_t)bitmap;
  if (last > 0) bits[0] |= 2;
  bits[last / 8] |= (uint8_t)(1 << last % 8);
}

static int changeState(uint8_t *data) {
  const int error = failure("MIG_DEVICE_STATE");
  put32(data + 4, (uint32_t)-1);
  if (error != 0) {
    // As a driver that was not able to bring the device back either.
    state = 0;
    return fail(error);
  }
  const uint32_t before = state;
  state = get32(data);
  // The data of PRE_COPY go on in STOP_COPY, through the descriptor that there is.
  if (state == 6 || (state == 3 && before != 6)) {
    if (saved >= 0) close(saved);
    saved = memfd_create("state", MFD_CLOEXEC);
    const char *bytes = state == 6 ? "precopy" : "the state of a device";
    if (pwrite(saved, bytes, strlen(bytes), 0) < 0) abort();
    put32(data + 4, (uint32_t)fcntl(saved, F_DUPFD_CLOEXEC, 0));
  } else if (state == 3) {
    if (pwrite(saved, ", the rest", 10, 7) < 0) abort();
  } else if (state == 4) {
    saved = memfd_create("state", MFD_CLOEXEC);
    put32(data + 4, (uint32_t)fcntl(saved, F_DUPFD_CLOEXEC, 0));
  } else if (before == 4) {
    char bytes[256] = "";
    const ssize_t count = pread(saved, bytes, sizeof(bytes) - 1, 0);
    note("LOADED", (const uint8_t *)bytes, count < 0 ? 0 : (size_t)count, 0);
  }
  if (state == 1 || state == 2) {
    close(saved);
    saved = -1;
  }
  return 0;
}

static int feature(uint8_t *bytes) {
  const uint32_t flags = get32(bytes + 4), number = flags & 0xffff;
  const int probe = (flags & 1 << 18) != 0;
  uint8_t *data = bytes + 8;
  const int absent = number == 1 || number == 2 ? lacks("MIGRATION") : number >= 6 && number <= 8 ? lacks("LOGGING") : number > 8;
  if (absent) return fail(ENOTTY);
  if (probe) return 0;
  switch (number) {
    case 1:
      note("MIGRATION", bytes, 16, 0);
      put64(data, 1 | 4);
      return 0;
    case 2:
      note("MIG_DEVICE_STATE", bytes, 16, 0);
      if ((flags & 1 << 17) != 0) return changeState(data);
      put32(data, state);
      put32(data + 4, (uint32_t)-1);
      return 0;
    case 6:
      note("DMA_LOGGING_START", bytes, 32, 24);
      note("ranges", (const uint8_t *)(uintptr_t)get64(data + 16), 16 * get32(data + 8), 0);
      if (failure("DMA_LOGGING_START") != 0) return fail(failure("DMA_LOGGING_START"));
      if (get64(data) < 8192) put64(data, 8192);
      logging = 1;
      return 0;
    case 7:
      note("DMA_LOGGING_STOP", bytes, 8, 0);
      logging = 0;
      return 0;
    case 8:
      note("DMA_LOGGING_REPORT", bytes, 40, 32);
      if (!logging) return fail(EINVAL);
      markPages(data, get64(data + 24));
      return 0;
    default:
      return fail(ENOTTY);
  }
}

static int newDevice(void) { return memfd_create("fake-vfio-device", MFD_CLOEXEC); }

static int regionInfo(uint8_t *bytes) {
  const uint32_t index = get32(bytes + 8);
  const uint64_t size = index == 0 ? 0x4000 : index == 7 ? 4096 : 0;
  put32(bytes, 32);
  put32(bytes + 4, size == 0 ? 0 : index == 7 ? 3 : 7);
  put32(bytes + 12, 0);
  put64(bytes + 16, size);
  put64(bytes + 24, (uint64_t)index << 40);
  return 0;
}

/** struct vfio_iommu_type1_info, with the addresses and the migration capability. */
static int iommuInfo(uint8_t *bytes) {
  const uint32_t room = get32(bytes);
  if (room < 24 + 32 + 32) return fail(EINVAL);
  put32(bytes + 4, 3);
  put64(bytes + 8, 0x40201000);
  put32(bytes + 16, 24);
  put32(bytes + 20, 0);
  uint8_t *ranges = bytes + 24, *migration = bytes + 56;
  put16(ranges, 1); put16(ranges + 2, 1); put32(ranges + 4, lacks("IOMMU_LOGGING") ? 0 : 56);
  put32(ranges + 8, 1); put32(ranges + 12, 0);
  put64(ranges + 16, 0); put64(ranges + 24, 0x7fffffffffff);
  put16(migration, 2); put16(migration + 2, 1); put32(migration + 4, 0);
  put32(migration + 8, 0); put32(migration + 12, 0);
  put64(migration + 16, 0x1000); put64(migration + 24, 0x10000000);
  return 0;
}

static int dirtyPages(uint8_t *bytes) {
  const uint32_t flags = get32(bytes + 4);
  note("DIRTY_PAGES", bytes, flags == 4 ? 48 : 8, flags == 4 ? 40 : 0);
  if (flags == 4) {
    if (!logging) return fail(EINVAL);
    uint8_t range[24];
    memcpy(range, bytes + 8, 24);
    markPages(range, get64(bytes + 40));
  } else {
    logging = flags == 1;
  }
  return 0;
}

static int iommufd(unsigned long request, uint8_t *bytes) {
  switch (request & 0xff) {
    case 0x80: note("IOMMU_DESTROY", bytes, 8, 0); return 0;
    case 0x81: put32(bytes + 8, 2); return 0;
    case 0x84: {
      uint8_t *spans = (uint8_t *)(uintptr_t)get64(bytes + 16);
      put32(bytes + 8, 1);
      put64(spans, 0);
      put64(spans + 8, 0x7fffffffffff);
      return 0;
    }
    case 0x85: note("MAP", NULL, 0, 0); return 0;
    case 0x86: return 0;
    case 0x89:
      note("HWPT_ALLOC", bytes, 40, 0);
      if (failure("HWPT_ALLOC") != 0) return fail(failure("HWPT_ALLOC"));
      put32(bytes + 16, 7);
      return 0;
    case 0x8a:
      note("GET_HW_INFO", bytes, 40, 0);
      if (failure("GET_HW_INFO") != 0) return fail(failure("GET_HW_INFO"));
      put64(bytes + 32, lacks("IOMMU_LOGGING") ? 0 : 1);
      return 0;
    case 0x8b: note("HWPT_SET_DIRTY_TRACKING", bytes, 16, 0); return 0;
    case 0x8c: {
      uint8_t range[24];
      note("HWPT_GET_DIRTY_BITMAP", bytes, 48, 40);
      memcpy(range, bytes + 16, 24);
      markPages(range, get64(bytes + 40));
      return 0;
    }
    default: return fail(ENOTTY);
  }
}

/** Descriptors are files of the test's and memory: what an ioctl is for is told by its number, and by the name of the file. */
static int isContainer(int fd) {
  char link[64], path[512];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof(path) - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strstr(path, "dev/vfio/vfio") != NULL;
}

static int vfio(int fd, unsigned long request, uint8_t *bytes) {
  static const char *const names[] = {"GET_API_VERSION", "CHECK_EXTENSION", "SET_IOMMU", "GROUP_GET_STATUS", "GROUP_SET_CONTAINER",
                                      "GROUP_UNSET_CONTAINER", "GROUP_GET_DEVICE_FD", "DEVICE_GET_INFO", "REGION_INFO", "IRQ_INFO",
                                      "SET_IRQS", "RESET", "GET_INFO", "MAP_DMA", "UNMAP_DMA", "", "", "FEATURE", "BIND", "ATTACH"};
  const unsigned number = (unsigned)(request & 0xff) - 100;
  if (number < sizeof(names) / sizeof(*names) && failure(names[number]) != 0) {
    if (number == 6) note("GROUP_GET_DEVICE_FD", bytes, strlen((char *)bytes), 0);
    if (number == 18) note("BIND", bytes, get32(bytes), get32(bytes) > 16 ? 16 : 0);
    return fail(failure(names[number]));
  }
  switch (number) {
    case 0: return 0;
    case 1: return 1;
    case 2: case 4: case 5: case 10: case 14: return 0;
    case 3: put32(bytes + 4, lacks("VIABLE") ? 0 : 1); return 0;
    case 6: note("GROUP_GET_DEVICE_FD", bytes, strlen((char *)bytes), 0); return newDevice();
    case 7:
      put32(bytes + 4, lacks("FLAG_RESET") ? 2 : 3);
      put32(bytes + 8, 9);
      put32(bytes + 12, 5);
      return 0;
    case 8: return regionInfo(bytes);
    case 9: put32(bytes, 16); put32(bytes + 4, 9); put32(bytes + 12, get32(bytes + 8) == 2 ? 4 : 1); return 0;
    case 11:
      note("RESET", NULL, 0, 0);
      state = 2;
      if (saved >= 0) close(saved);
      saved = -1;
      return 0;
    case 12: return isContainer(fd) ? iommuInfo(bytes) : fail(ENODEV);
    case 13: note("MAP", NULL, 0, 0); return 0;
    case 17: return isContainer(fd) ? dirtyPages(bytes) : feature(bytes);
    case 18:
      note("BIND", bytes, get32(bytes), get32(bytes) > 16 ? 16 : 0);
      if (get32(bytes) > 16) note("token", (const uint8_t *)(uintptr_t)get64(bytes + 16), 16, 0);
      put32(bytes + 12, 1);
      return 0;
    case 19: note("ATTACH", bytes, 12, 0); return 0;
    case 21:
      note("GET_PRECOPY_INFO", bytes, 24, 0);
      if (state != 6) return fail(EINVAL);
      put64(bytes + 8, 7);
      put64(bytes + 16, 0x123456789);
      return 0;
    default: return fail(ENOTTY);
  }
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  if ((request & ~0xfful) != ((unsigned long)';' << 8)) return (int)syscall(SYS_ioctl, fd, request, argument);
  return (request & 0xff) >= 0x80 && (request & 0xff) < 0x90 ? iommufd(request, argument) : vfio(fd, request, argument);
}

static int openNode(const char *path, int flags, mode_t mode) {
  if (strstr(path, "/dev/vfio") != NULL && failure("OPEN") != 0) return fail(failure("OPEN"));
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return openNode(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return openNode(path, flags, mode);
}
