# The drive is reset, unbound and bound again in every way that Linux has, while it is used and while it is not.
. /lib.sh

LOAD="fio --name=load --filename=$DRIVE --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=16M
  --verify=crc32c --verify_fatal=1 --time_based --output-format=terse"

is_live() { [ "$(cat /sys/class/nvme/nvme0/state 2>/dev/null)" = live ]; }

# A load whose data is verified, and so many resets meanwhile.
under_load() {
  $LOAD --runtime=6 >/run/fio 2>&1 &
  load=$!
  for _ in $(seq "$1"); do
    sleep 0.7
    "$2"
    within 20 is_live
  done
  wait $load || { cat /run/fio; return 1; }
}

by_controller() { echo 1 >/sys/class/nvme/nvme0/reset_controller; }
by_subsystem() { nvme subsystem-reset /dev/nvme0; }

# Function Level Reset (PCI Express Base 6.0, section 6.6.2), or what the device has; Linux resets the controller around it.
by_function() {
  [ -e "$(device)/reset" ] || skip 'the device has no reset of its function'
  echo 1 >"$(device)/reset"
  within 20 is_live
  is_filled pattern 4 $DRIVE
}

unbinds() {
  where=$(address)
  echo "$where" >/sys/bus/pci/drivers/nvme/unbind
  within 10 test ! -e $DRIVE
  echo "$where" >/sys/bus/pci/drivers/nvme/bind
  within 20 test -b $DRIVE
  is_filled pattern 4 $DRIVE
}

removes() {
  echo 1 >"$(device)/remove"
  within 10 test ! -e $DRIVE
  echo 1 >/sys/bus/pci/rescan
  within 20 test -b $DRIVE
  is_filled pattern 4 $DRIVE
}

check 'fio verifies under resets of the controller' under_load 5 by_controller
check 'a pattern is written' fill pattern 4 $DRIVE
check 'the function is reset' by_function
check 'the driver is unbound and bound' unbinds
check 'the device is removed and found again' removes
check 'fio verifies after all that' under_load 1 by_controller
