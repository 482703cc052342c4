// SPDX-License-Identifier: MIT
// Drives an NVMe controller through the kernel's VFIO in a guest: reset, registers, DMA, an interrupt by MSI-X. Prints the model.
//   vfio-identify /dev/vfio/GROUP PCI-ADDRESS [figures]
// With `figures` it prints what a register and an interrupt cost, as kernel-figures.ts does.
#include <err.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, IOVA = 0x100000, ENTRIES = 8, SECONDS = 30 };
// How often the figures are taken.
enum { ROUNDS = 7, READS = 20000, CALLS = 2000, SIGNALS = 200 };
// Pages of the memory: the admin queues, and what Identify returns.
enum { SUBMISSIONS, COMPLETIONS, DATA, PAGES };
// NVM Express Base 2.1, section 3.1.4: offsets of registers.
enum { VS = 0x08, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, DOORBELLS = 0x1000 };

static volatile uint8_t* bar;

static int check(int result, const char* what) {
  if (result < 0) err(1, "%s", what);
  return result;
}

static struct vfio_region_info region(int device, uint32_t index) {
  struct vfio_region_info info = {.argsz = sizeof info, .index = index};
  check(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info), "VFIO_DEVICE_GET_REGION_INFO");
  return info;
}

static void write32(uint32_t offset, uint32_t value) { *(volatile uint32_t*)(bar + offset) = value; }
static uint32_t read32(uint32_t offset) { return *(volatile uint32_t*)(bar + offset); }
static void write64(uint32_t offset, uint64_t value) {
  write32(offset, (uint32_t)value);
  write32(offset + 4, (uint32_t)(value >> 32));
}

static void wait_ready(uint32_t ready) {
  for (int i = 0; i < SECONDS * 100; i++) {
    if ((read32(CSTS) & 1) == ready) return;
    usleep(10000);
  }
  errx(1, "CSTS.RDY does not become %u", ready);
}

// The admin queue: where it is, how many commands it has had, and what signals their completions.
static uint8_t* memory;
static uint32_t commands;
static int interrupt;

static void wait_interrupt(void) {
  struct pollfd fd = {.fd = interrupt, .events = POLLIN};
  uint64_t signals;
  if (poll(&fd, 1, SECONDS * 1000) != 1) errx(1, "no interrupt");
  check((int)read(interrupt, &signals, sizeof signals), "eventfd");
}

static void identify(void) {
  uint32_t* entry = (uint32_t*)(memory + SUBMISSIONS * PAGE) + commands % ENTRIES * 16;
  memset(entry, 0, 64);
  entry[0] = 0x06;
  entry[6] = IOVA + DATA * PAGE;
  entry[10] = 1;
  __sync_synchronize();
  write32(DOORBELLS, (commands + 1) % ENTRIES);
  wait_interrupt();
  const uint32_t status = ((volatile uint32_t*)(memory + COMPLETIONS * PAGE))[commands % ENTRIES * 4 + 3];
  // The phase is 1 in the first round, and the status 0.
  if (status >> 16 != (commands / ENTRIES % 2 == 0)) errx(1, "Identify ended with %#x", status);
  write32(DOORBELLS + 4, ++commands % ENTRIES);
}

static double nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void print_figure(const char* name, double value) { printf("figure %s: %.0f ns\n", name, value); }

// The least of some rounds, per operation: what disturbs a round makes it longer.
#define LEAST(name, count, operation)                              \
  do {                                                             \
    double least = 1e18;                                           \
    for (int round = 0; round < ROUNDS; round++) {                 \
      const double begin = nanoseconds();                          \
      for (int i = 0; i < (count); i++) operation;                 \
      const double took = (nanoseconds() - begin) / (count);       \
      if (took < least) least = took;                              \
    }                                                              \
    print_figure(name, least);                                     \
  } while (0)

static int compare(const void* a, const void* b) {
  return *(const double*)a < *(const double*)b ? -1 : *(const double*)a > *(const double*)b;
}

// The middle one of the times that something took.
#define MEDIAN(name, operation)                                    \
  do {                                                             \
    double times[SIGNALS];                                         \
    for (int i = 0; i < SIGNALS; i++) {                            \
      const double begin = nanoseconds();                          \
      operation;                                                   \
      times[i] = nanoseconds() - begin;                            \
    }                                                              \
    qsort(times, SIGNALS, sizeof *times, compare);                 \
    print_figure(name, times[SIGNALS / 2]);                        \
  } while (0)

static void trigger(int device) {
  struct vfio_irq_set set = {.argsz = sizeof set,
                             .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
                             .index = VFIO_PCI_MSIX_IRQ_INDEX,
                             .start = 0,
                             .count = 1};
  check(ioctl(device, VFIO_DEVICE_SET_IRQS, &set), "VFIO_DEVICE_SET_IRQS");
  wait_interrupt();
}

static void figures(int device, off_t registers) {
  volatile uint32_t value;
  LEAST("read of a mapped register", READS, value = read32(VS));
  LEAST("read of a register by system call", CALLS,
        check((int)pread(device, (void*)&value, 4, registers + VS), "pread"));
  MEDIAN("signal to itself", trigger(device));
  MEDIAN("Identify with its interrupt", identify());
}

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) errx(2, "usage: vfio-identify GROUP ADDRESS [figures]");
  const int container = check(open("/dev/vfio/vfio", O_RDWR), "/dev/vfio/vfio");
  const int group = check(open(argv[1], O_RDWR), argv[1]);
  check(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container), "VFIO_GROUP_SET_CONTAINER");
  check(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), "VFIO_SET_IOMMU");
  const int device = check(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[2]), "VFIO_GROUP_GET_DEVICE_FD");
  check(ioctl(device, VFIO_DEVICE_RESET), "VFIO_DEVICE_RESET");

  // Memory space and bus master.
  const struct vfio_region_info config = region(device, VFIO_PCI_CONFIG_REGION_INDEX);
  const uint16_t command = 0x6;
  if (pwrite(device, &command, 2, (off_t)config.offset + 4) != 2) err(1, "the command register");

  const struct vfio_region_info bar0 = region(device, VFIO_PCI_BAR0_REGION_INDEX);
  bar = mmap(NULL, bar0.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)bar0.offset);
  if (bar == MAP_FAILED) err(1, "BAR 0");

  memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) err(1, "memory");
  struct vfio_iommu_type1_dma_map map = {.argsz = sizeof map,
                                         .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
                                         .vaddr = (uintptr_t)memory,
                                         .iova = IOVA,
                                         .size = PAGES * PAGE};
  check(ioctl(container, VFIO_IOMMU_MAP_DMA, &map), "VFIO_IOMMU_MAP_DMA");

  interrupt = check(eventfd(0, 0), "eventfd");
  uint8_t words[sizeof(struct vfio_irq_set) + sizeof(int)];
  struct vfio_irq_set set = {.argsz = sizeof words,
                             .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                             .index = VFIO_PCI_MSIX_IRQ_INDEX,
                             .start = 0,
                             .count = 1};
  memcpy(words, &set, sizeof set);
  memcpy(words + sizeof set, &interrupt, sizeof interrupt);
  check(ioctl(device, VFIO_DEVICE_SET_IRQS, words), "VFIO_DEVICE_SET_IRQS");

  write32(CC, 0);
  wait_ready(0);
  write32(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
  write64(ASQ, IOVA + SUBMISSIONS * PAGE);
  write64(ACQ, IOVA + COMPLETIONS * PAGE);
  write32(CC, 6 << 16 | 4 << 20 | 1);
  wait_ready(1);

  identify();
  printf("model %.40s\n", (char*)memory + DATA * PAGE + 24);
  if (argc == 4) figures(device, (off_t)bar0.offset);
  return 0;
}
