# The storage behind the drive is full before the drive is. Writes fail, and everything else goes on.
. /lib.sh

# Storage that has room for 16 MiB.
is_full() {
  fill small 4 $DRIVE
  fails dd if=/dev/urandom of=$DRIVE bs=1M count=64 seek=8 oflag=direct
}
reads() { is_filled small 4 $DRIVE; }
overwrites() {
  fill other 4 $DRIVE
  is_filled other 4 $DRIVE
}
is_alive() {
  dmesg | grep -E 'critical space allocation error|nospc|I/O error' | tail -n 3
  [ "$(cat /sys/class/nvme/nvme0/state)" = live ]
  nvme smart-log /dev/nvme0
}
resets() {
  echo 1 >/sys/class/nvme/nvme0/reset_controller
  within 20 grep -q live /sys/class/nvme/nvme0/state
  is_filled other 4 $DRIVE
}

check 'what has no room fails' is_full
check 'what is there is read' reads
check 'what has room is written' overwrites
check 'the controller is alive' is_alive
check 'it survives a reset' resets
