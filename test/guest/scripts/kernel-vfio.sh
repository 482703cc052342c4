# PCI devices of the guest through the kernel's VFIO, by Node: QEMU's NVMe controller, and ours behind QEMU's vfio-user-pci.
. /lib.sh
. /vfio.sh

not_bound() {
  tool devices | grep "$PLAIN  nvme "
  device refused $PLAIN group | grep "its driver is nvme.*vfio-user bind $PLAIN"
}
binds() {
  tool bind $PLAIN | grep "is bound to vfio-pci; it was bound to nvme"
  [ "$(driver $PLAIN)" = vfio-pci ]
}
gives_ours() { give $OURS; }
verifies() {
  tool bench $1 --rw write --size 4m --verify --i-know-this-destroys-data-on $1 | grep 'all as written'
}
runs_by_interrupts() { tool bench $PLAIN --runtime 1 --completion interrupt | grep 'errors: 0'; }
unbinds() {
  tool unbind $PLAIN
  [ "$(driver $PLAIN)" = nvme ]
}

check 'a device with another driver is listed, and refused with the command to run' not_bound
check 'bind takes it from its driver' binds
check 'the tests of the device interface pass, by the group' device conformance $PLAIN group
check 'the tests of the device interface pass, by the iommufd' by_iommufd conformance $PLAIN
check 'INTx, MSI and MSI-X signal, whichever the device has' all_ways interrupts $PLAIN
check 'the benchmark verifies what it wrote' verifies $PLAIN
check 'the benchmark runs by interrupts' runs_by_interrupts
check 'our controller goes to vfio-pci' gives_ours
check 'the tests pass on our controller, by the group' device conformance $OURS group
check 'the tests pass on our controller, by the iommufd' by_iommufd conformance $OURS
check 'the benchmark verifies what it wrote to our controller' verifies $OURS
check 'unbind gives the device back' unbinds
