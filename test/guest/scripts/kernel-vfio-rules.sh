# What the kernel's VFIO allows and refuses, and what several devices and processes have to do with each other. Our controller has MSI.
. /lib.sh
. /vfio.sh

not_viable() {
  give $FIRST
  for way in $(ways); do device refused $FIRST $way | grep "is not viable.*$SECOND (nvme)"; done
  give $SECOND
  give $PLAIN
}
memlock() { for way in $(ways); do alone memlock $PLAIN $way; done; }
permission() { for way in $(ways); do alone permission $PLAIN $way; done; }
no_hot_reset() {
  give $OURS
  all_ways no-hot-reset $OURS
}

virtual_function() {
  give $PHYSICAL
  echo 1 >/sys/module/vfio_pci/parameters/enable_sriov
  echo 1 >/sys/bus/pci/devices/$PHYSICAL/sriov_numvfs
  virtual=$(basename "$(readlink /sys/bus/pci/devices/$PHYSICAL/virtfn0)")
  give $virtual
  device token $PHYSICAL $virtual group
}

check 'a group with another driver is refused, which is named' not_viable
check 'two devices share a container' all_ways shared $PLAIN $FIRST
check 'two devices of one group share a container' all_ways shared $FIRST $SECOND
check 'a hot reset resets the bus of a device' all_ways hot-reset $PLAIN
check 'a hot reset resets both functions of a slot, which are of one group' all_ways hot-reset $FIRST
check 'a hot reset is refused where the bus cannot be reset' no_hot_reset
check 'an error of the bus, and that the device is asked back, are signalled' all_ways events $PLAIN
check 'the pages that are written are told as far as the kernel knows' all_ways dirty $PLAIN
check 'a virtual function is opened with the token of its physical one' virtual_function
check 'our controller signals by INTx and by MSI' all_ways interrupts $OURS
check 'addresses that the IOMMU does not have are refused' all_ways addresses $PLAIN
check 'memory beyond the limit is refused with the limit' memlock
check 'a user without permission is told' permission
check 'a device that another process has is busy' all_ways busy $PLAIN
