# The guest gives the drive to a program of its own, by vfio-pci, and takes it back.
. /lib.sh

where=$(address)
group=/dev/vfio/$(basename "$(readlink "$(device)/iommu_group")")

goes_to_vfio() {
  modprobe vfio-pci
  # A virtio IOMMU does not remap interrupts.
  modprobe vfio_iommu_type1 allow_unsafe_interrupts=1
  fill kept 4 $DRIVE
  echo "$where" >/sys/bus/pci/drivers/nvme/unbind
  echo vfio-pci >"/sys/bus/pci/devices/$where/driver_override"
  echo "$where" >/sys/bus/pci/drivers_probe
  within 10 test -c "$group"
}
is_driven() { /host/vfio-identify "$group" "$where" | grep 'model vfio-user'; }
comes_back() {
  echo "$where" >/sys/bus/pci/drivers/vfio-pci/unbind
  echo nvme >"/sys/bus/pci/devices/$where/driver_override"
  echo "$where" >/sys/bus/pci/drivers_probe
  within 30 test -b $DRIVE
  is_filled kept 4 $DRIVE
}

check 'the drive goes to vfio-pci' goes_to_vfio
check 'a program drives it: registers, DMA, an interrupt' is_driven
check 'another program does the same' is_driven
check 'the driver of Linux has it again' comes_back
