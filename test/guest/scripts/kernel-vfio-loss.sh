# What becomes of a PCI device that goes astray, whose process dies, or that is taken away, through the kernel's VFIO.
. /lib.sh
. /vfio.sh

registers_away() {
  give $PLAIN
  all_ways away $PLAIN
}
# Each IOMMU has words of its own; of virtio's they are the device's address alone.
tells_fault() {
  all_ways fault $PLAIN
  within 10 sh -c 'dmesg | grep -iE "fault.*12345"'
}
killed() {
  for way in $(ways); do
    fails alone killed $PLAIN $way
    device away $PLAIN $way
  done
  echo $PLAIN >/sys/bus/pci/drivers/vfio-pci/unbind
  give $PLAIN
}

# A program reads from the device by this way, all the time.
begin_reading() {
  : >/run/waiting
  alone wait $PLAIN $1 >/run/waiting 2>&1 &
  reader=$!
  within 60 grep -q waiting /run/waiting
}
has_ended() { wait $reader || { cat /run/waiting; return 1; }; }

asked_back() {
  for way in $(ways); do
    begin_reading $way
    echo $PLAIN >/sys/bus/pci/drivers/vfio-pci/unbind
    has_ended
    give $PLAIN
  done
}
is_back() { [ -n "$(of PLAIN)" ]; }
unplugged() {
  for way in $(ways); do
    begin_reading $way
    host unplug
    has_ended
    within 10 test ! -e /sys/bus/pci/devices/$PLAIN
    host plug
    within 30 is_back
    give $PLAIN
  done
}

check 'registers come back after decoding was off, and after a reset' registers_away
check 'the IOMMU stops a device that goes astray, and the kernel says so' tells_fault
check 'a process that is killed leaves the device to others' killed
check 'a device in use that is asked back is given, and unbinding ends' asked_back
check 'a device in use is unplugged, and comes again' unplugged
