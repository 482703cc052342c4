// SPDX-License-Identifier: MIT
// Drives an NVMe controller through the kernel's VFIO in a guest: reset, registers, DMA, an interrupt by MSI-X. Prints the model.
//   vfio-identify /dev/vfio/GROUP PCI-ADDRESS
#include <err.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, IOVA = 0x100000, ENTRIES = 8, SECONDS = 30 };
// Pages of the memory: the admin queues, and what Identify returns.
enum { SUBMISSIONS, COMPLETIONS, DATA, PAGES };
// NVM Express Base 2.1, section 3.1.4: offsets of registers.
enum { CAP = 0x00, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, DOORBELLS = 0x1000 };

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

int main(int argc, char** argv) {
  if (argc != 3) errx(2, "usage: vfio-identify GROUP ADDRESS");
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

  uint8_t* memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) err(1, "memory");
  struct vfio_iommu_type1_dma_map map = {.argsz = sizeof map,
                                         .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
                                         .vaddr = (uintptr_t)memory,
                                         .iova = IOVA,
                                         .size = PAGES * PAGE};
  check(ioctl(container, VFIO_IOMMU_MAP_DMA, &map), "VFIO_IOMMU_MAP_DMA");

  const int interrupt = check(eventfd(0, 0), "eventfd");
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

  uint32_t* identify = (uint32_t*)(memory + SUBMISSIONS * PAGE);
  identify[0] = 0x06;
  identify[6] = IOVA + DATA * PAGE;
  identify[10] = 1;
  __sync_synchronize();
  write32(DOORBELLS, 1);
  struct pollfd fd = {.fd = interrupt, .events = POLLIN};
  if (poll(&fd, 1, SECONDS * 1000) != 1) errx(1, "no interrupt");
  const uint32_t status = ((volatile uint32_t*)(memory + COMPLETIONS * PAGE))[3];
  // The phase is 1, and the status 0.
  if (status >> 16 != 1) errx(1, "Identify ended with %#x", status);
  printf("model %.40s\n", (char*)memory + DATA * PAGE + 24);
  return 0;
}
