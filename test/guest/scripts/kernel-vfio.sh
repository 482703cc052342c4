# PCI devices of the guest through the kernel's VFIO, by Node.
. /lib.sh
. /vfio.sh

not_bound() {
  tool devices | grep "$PLAIN  nvme "
  tool info $PLAIN 2>&1 | grep "its driver is nvme.*vfio-user bind $PLAIN"
}
binds() {
  tool bind $PLAIN | grep "is bound to vfio-pci; it was bound to nvme"
  [ "$(driver $PLAIN)" = vfio-pci ]
}
not_viable() {
  tool bind $FIRST 2>&1 | grep "$SECOND (nvme)"
  device refused $FIRST group | grep "is not viable.*$SECOND (nvme)"
  tool bind $SECOND
}
by_iommufd() {
  [ -c /dev/iommu ] || skip "this kernel has no iommufd"
  device conformance $PLAIN iommufd
}
verifies() {
  tool bench $PLAIN --rw write --size 4m --verify --i-know-this-destroys-data-on $PLAIN | grep 'all as written'
  tool bench $PLAIN --runtime 1 --completion interrupt | grep 'errors: 0'
}
no_hot_reset() {
  tool bind $OURS
  device no-hot-reset $OURS group
  tool unbind $OURS
  [ "$(driver $OURS)" = nvme ]
}

check 'a device with another driver is listed, and refused with the command to run' not_bound
check 'bind takes it from its driver' binds
check 'a group with another driver is refused, which is named' not_viable
check 'the tests of the device interface pass, by the group' device conformance $PLAIN group
check 'the tests of the device interface pass, by the iommufd' by_iommufd
check 'the benchmark verifies what it wrote, and runs by interrupts' verifies
check 'registers come back after decoding was off, and after a reset' all_ways away $PLAIN
check 'two devices share a container' all_ways shared $PLAIN $FIRST
check 'addresses that the IOMMU does not have are refused' all_ways addresses $PLAIN
check 'memory beyond the limit is refused with the limit' all_ways memlock $PLAIN
check 'a user without permission is told' all_ways permission $PLAIN
check 'a device that another process has is busy' all_ways busy $PLAIN
check 'a hot reset is refused where the bus cannot be reset; unbind gives the device back' no_hot_reset
