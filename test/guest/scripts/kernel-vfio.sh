# PCI devices of the guest through the kernel's VFIO, by Node: QEMU's own drives, and ours. Behind an IOMMU.
. /lib.sh
modprobe vfio-pci 2>/dev/null
modprobe vfio_iommu_type1 2>/dev/null
modprobe iommufd 2>/dev/null

tool() { node /app/dist/cli/main.js "$@"; }
device() { node /app/test/guest/programs/kernel-device.js "$@"; }
# The PCI address of the NVMe controller with a serial number, before it is given away.
of() { for c in /sys/class/nvme/nvme*; do grep -q "^$1 *$" $c/serial && basename "$(readlink -f $c/device)"; done; }
driver() { basename "$(readlink -f /sys/bus/pci/devices/$1/driver)"; }
ways() { echo group; if [ -c /dev/iommu ] && [ -d /dev/vfio/devices ]; then echo iommufd; fi; }
need_iommufd() { [ -c /dev/iommu ] || skip "this kernel has no iommufd"; }

within 30 test -e /sys/class/nvme/nvme3/serial
PLAIN=$(of PLAIN) FIRST=$(of FIRST) SECOND=$(of SECOND)
OURS=$(for d in /sys/class/nvme/nvme*; do a=$(basename "$(readlink -f $d/device)"); case "$PLAIN $FIRST $SECOND" in *$a*) ;; *) echo $a ;; esac; done)

not_bound() {
  tool devices | grep "$PLAIN  nvme "
  tool info $PLAIN 2>&1 | grep "its driver is nvme.*vfio-user bind $PLAIN"
}
binds() {
  tool bind $PLAIN | grep "is bound to vfio-pci; it was bound to nvme"
  [ "$(driver $PLAIN)" = vfio-pci ]
  tool bind $PLAIN | grep 'already'
}
not_viable() {
  tool bind $FIRST 2>&1 | grep "$SECOND (nvme)"
  device refused $FIRST group | grep "is not viable.*$SECOND (nvme)"
  tool bind $SECOND
}
binds_ours() { tool bind $OURS; }
by() { for address in $PLAIN $OURS; do device conformance $address $1; done; }
by_iommufd() { need_iommufd; by iommufd; }
all_ways() { for way in $(ways); do device "$@" $way; done; }
verifies() {
  tool bench $PLAIN --rw randwrite --size 4m --verify 2>&1 | grep 'real hardware'
  tool bench $PLAIN --rw write --size 4m --verify --i-know-this-destroys-data-on $PLAIN | grep 'all as written'
  tool bench $PLAIN --runtime 1 --completion interrupt | grep 'errors: 0'
}
tells_fault() {
  all_ways fault $PLAIN
  dmesg | grep -E 'DMAR.*fault|DMA.*(Read|Write).*NO_PASID|fault addr|page fault from EP'
}
killed() {
  for way in $(ways); do
    device killed $PLAIN $way && return 1
    device away $PLAIN $way
  done
  tool unbind $PLAIN
  [ "$(driver $PLAIN)" = nvme ]
  tool bind $PLAIN
}
asked_back() {
  for way in $(ways); do
    device wait $PLAIN $way >/run/waiting 2>&1 &
    within 20 grep -q waiting /run/waiting
    tool unbind $PLAIN
    wait $! || { cat /run/waiting; return 1; }
    tool bind $PLAIN
  done
}
unplugged() {
  device wait $PLAIN group >/run/waiting 2>&1 &
  within 20 grep -q waiting /run/waiting
  host unplug
  wait $! || { cat /run/waiting; return 1; }
  within 20 test ! -e /sys/bus/pci/devices/$PLAIN
  device refused $PLAIN group | grep 'no PCI device is at'
}
given_back() {
  tool unbind $OURS
  [ "$(driver $OURS)" = nvme ]
  within 30 test -e /sys/bus/pci/devices/$OURS/nvme
}

check 'a device with another driver is listed, and refused with the command to run' not_bound
check 'bind takes it from its driver' binds
check 'a group with another driver is refused, which is named' not_viable
check 'our own controller is bound' binds_ours
check 'the tests of the device interface pass, by the group' by group
check 'the tests of the device interface pass, by the iommufd' by_iommufd
check 'the benchmark verifies what it wrote, once told to, and runs by interrupts' verifies
check 'registers come back after decoding was off, and after a reset' all_ways away $PLAIN
check 'two devices share a container' all_ways shared $PLAIN $OURS
check 'addresses that the IOMMU does not have are refused' all_ways addresses $PLAIN
check 'memory beyond the limit is refused with the limit' all_ways memlock $PLAIN
check 'a user without permission is told' all_ways permission $PLAIN
check 'a device that another process has is busy' all_ways busy $PLAIN
check 'a hot reset resets both functions of a slot' all_ways hot-reset $FIRST $SECOND
check 'a hot reset is refused where the bus cannot be reset' all_ways no-hot-reset $OURS
check 'the IOMMU stops a device that goes astray, and the kernel says so' tells_fault
check 'a process that is killed leaves the device to others' killed
check 'a device that is asked back is given, and unbinding ends' asked_back
check 'a device that is unplugged while in use goes' unplugged
check 'unbind gives ours back to its driver, which works again' given_back
