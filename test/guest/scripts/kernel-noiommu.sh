# Devices without an IOMMU through the kernel's VFIO, which has to be asked for that.
. /lib.sh
. /vfio.sh

without() {
  switch=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
  [ -e $switch ] || skip 'this kernel has no mode without an IOMMU'
  echo 1 >$switch
  give $PLAIN
  device noiommu $PLAIN group
}

check 'a device is had on demand alone, with a warning, and without memory' without
