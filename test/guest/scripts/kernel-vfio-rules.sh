# What the kernel's VFIO allows and refuses, and what several devices and processes have to do with each other. Our controller has MSI.
. /lib.sh
. /vfio.sh

not_viable() {
  give $FIRST
  device refused $FIRST group | grep "is not viable.*$SECOND (nvme)"
  give $SECOND
  give $PLAIN
}
memlock() { for way in $(ways); do alone memlock $PLAIN $way; done; }
permission() { for way in $(ways); do alone permission $PLAIN $way; done; }
no_hot_reset() {
  give $OURS
  all_ways no-hot-reset $OURS
}

check 'a group with another driver is refused, which is named' not_viable
check 'two devices share a container' all_ways shared $PLAIN $FIRST
check 'two devices of one group share a container' all_ways shared $FIRST $SECOND
check 'a hot reset resets the bus of a device' all_ways hot-reset $PLAIN
check 'a hot reset resets both functions of a slot, which are of one group' all_ways hot-reset $FIRST
check 'a hot reset is refused where the bus cannot be reset' no_hot_reset
check 'our controller signals by INTx and by MSI' all_ways interrupts $OURS
check 'addresses that the IOMMU does not have are refused' all_ways addresses $PLAIN
check 'memory beyond the limit is refused with the limit' memlock
check 'a user without permission is told' permission
check 'a device that another process has is busy' all_ways busy $PLAIN
