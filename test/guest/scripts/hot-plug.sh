# The drive is plugged into a machine that runs, unplugged from it, and pulled out without a word.
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
  host unplug
  within 30 test ! -e $DRIVE
}
is_plugged_again() {
  host plug
  within 30 test -b $DRIVE
  is_filled plugged 4 $DRIVE
}

# All registers read as ones from then on. Linux learns of it when a command has not been answered for io_timeout; its
# controller is dead then, and goes with the function.
is_pulled() {
  device >/run/device
  host pull
  fails dd if=$DRIVE of=/dev/null bs=512 count=1 iflag=direct
  dmesg | grep 'CSTS=0xffffffff'
  within 30 grep dead /sys/class/nvme/nvme0/state
}
# The function that is no longer there goes from Linux, and from the slot.
is_put_back() {
  echo 1 >"$(cat /run/device)/remove"
  host unplug
  is_plugged_again
}

check 'the drive is plugged' is_plugged
check 'it keeps what is written' keeps_data
check 'it is unplugged' is_unplugged
check 'it is plugged again, with its data' is_plugged_again
check 'it is pulled out: what is under way fails, and Linux gives it up' is_pulled
check 'it is put back, with its data' is_put_back
