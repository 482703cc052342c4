# What becomes of a PCI device that goes astray, whose process dies, or that is taken away, through the kernel's VFIO.
. /lib.sh
. /vfio.sh

tells_fault() {
  tool bind $PLAIN
  all_ways fault $PLAIN
  dmesg | grep -E 'DMAR.*fault addr 0x12345'
}
killed() {
  for way in $(ways); do
    fails device killed $PLAIN $way
    device away $PLAIN $way
  done
}
asked_back() {
  for way in $(ways); do
    device wait $PLAIN $way >/run/waiting 2>&1 &
    within 20 grep -q waiting /run/waiting
    tool unbind $PLAIN
    wait $! || { cat /run/waiting; return 1; }
    [ "$(driver $PLAIN)" = nvme ]
    tool bind $PLAIN
  done
}

check 'the IOMMU stops a device that goes astray, and the kernel says so' tells_fault
check 'a process that is killed leaves the device to others' killed
check 'a device that is asked back is given, and unbinding ends' asked_back
