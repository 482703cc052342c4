# The drive is plugged into a machine that runs, and unplugged from it.
. /lib.sh

is_plugged() {
  [ ! -e $DRIVE ]
  host plug
  within 30 test -b $DRIVE
}
keeps_data() {
  fill plugged 4 $DRIVE
  is_filled plugged 4 $DRIVE
}
is_unplugged() {
  # QEMU 11.1 aborts when a vfio-user device with MSI-X is unplugged.
  [ -z "$(lspci -vv -s "$(address)" | grep MSI-X)" ] || skip 'QEMU cannot unplug a drive with MSI-X'
  host unplug
  within 30 test ! -e $DRIVE
}
is_plugged_again() {
  [ ! -e $DRIVE ] || skip 'it was not unplugged'
  host plug
  within 30 test -b $DRIVE
  is_filled plugged 4 $DRIVE
}

check 'the drive is plugged' is_plugged
check 'it keeps what is written' keeps_data
check 'it is unplugged' is_unplugged
check 'it is plugged again, with its data' is_plugged_again
