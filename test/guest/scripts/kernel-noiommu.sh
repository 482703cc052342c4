# Devices without an IOMMU through the kernel's VFIO, which has to be asked for that.
. /lib.sh
. /vfio.sh

# VFIO would not take it, and it would have been taken from its driver for nothing.
not_bound() {
  fails tool bind $PLAIN 2>&1 | grep "$PLAIN is in no IOMMU group: no IOMMU is in use.*intel_iommu=on"
  [ "$(driver $PLAIN)" = nvme ]
}
without() {
  switch=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
  [ -e $switch ] || skip 'this kernel has no mode without an IOMMU'
  echo 1 >$switch
  give $PLAIN
  device noiommu $PLAIN group
}

check 'a device is left to its driver, and what to do is told' not_bound
check 'a device is had on demand alone, with a warning, and without memory' without
