# The drive as Linux finds it: read, written, flushed, reset; its interrupts and what it says of itself.
. /lib.sh

is_found() {
  [ -b $DRIVE ]
  [ "$(cat /sys/class/nvme/nvme0/state)" = live ]
  [ "$(cat /sys/class/nvme/nvme0/model | tr -d ' ')" != '' ]
  lspci -nn -s "$(address)" | grep -F '[0108]'
}

keeps_data() {
  fill "first" 4 $DRIVE
  echo 3 >/proc/sys/vm/drop_caches
  is_filled "first" 4 $DRIVE
}

verifies() {
  fio --name=verify --filename=$DRIVE --direct=1 --ioengine=libaio --iodepth=32 --rw=randrw --bsrange=512-64k \
    --size=8M --verify=crc32c --verify_fatal=1 --output-format=terse >/run/fio || { cat /run/fio; return 1; }
}

# The lines of its queues in /proc/interrupts count up while it is read.
interrupts() { awk '/nvme0q/ { for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }' /proc/interrupts; }
interrupts_count() {
  before=$(interrupts)
  dd if=$DRIVE of=/dev/null bs=64k count=32 iflag=direct
  after=$(interrupts)
  echo "interrupts: $before, $after"
  [ "$after" -gt "$before" ]
}

no_complaints() { [ "$(complaints)" = '' ] || { complaints; return 1; }; }

survives_reset() {
  fill "first" 4 $DRIVE
  echo 1 >/sys/class/nvme/nvme0/reset_controller
  within 20 grep -q live /sys/class/nvme/nvme0/state
  is_filled "first" 4 $DRIVE
}

if grep -q pci=nomsi /proc/cmdline && [ ! -b $DRIVE ]; then
  pin=$(setpci -d ::0108 INTERRUPT_PIN)
  [ "$pin" != 00 ] || WHY_NOT='the drive has no INTx'
fi

check 'the drive is found' is_found
check 'it keeps what is written' keeps_data
check 'fio reads what it has written' verifies
check 'its interrupts arrive' interrupts_count
check 'Linux complains of nothing' no_complaints
check 'what is written survives a reset of the controller' survives_reset
