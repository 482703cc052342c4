# What Linux makes of a drive that fails on demand. Its messages are those of drivers/nvme/host.
. /lib.sh

read_block() { dd if=$DRIVE of=/dev/null bs=512 count=1 iflag=direct skip="$1"; }
is_live() { [ "$(cat /sys/class/nvme/nvme0/state 2>/dev/null)" = live ]; }
says() { dmesg | grep -q "$1"; }
uptime_seconds() { cut -d. -f1 /proc/uptime; }

bad_block() {
  ! read_block 4096
  says 'LBA 4096.*sct 0x2 / sc 0x81'
  read_block 4097
}

never_completes() {
  read_block 4104
  says 'timeout, aborting'
  says 'timeout, reset controller'
  within 20 is_live
}

wrong_id() {
  read_block 4112
  says 'invalid id .* completed on queue'
  within 20 is_live
}

twice() {
  read_block 4120
  says 'genctr mismatch'
  is_live
}

without_interrupt() {
  read_block 4128
  says 'timeout, completion polled'
  is_live
}

late() {
  begin=$(uptime_seconds)
  read_block 4136
  [ $(($(uptime_seconds) - begin)) -ge 1 ]
}

event() {
  read_block 4144
  within 10 says 'resetting controller due to persistent internal error'
  within 20 is_live
}

check 'a bad block fails its read, and no other' bad_block
check 'a command that never completes is aborted, then the controller is reset' never_completes
check 'a completion under a wrong id is refused' wrong_id
check 'a command that completes twice does no harm' twice
check 'a completion without an interrupt is found' without_interrupt
check 'a read is late' late
check 'an asynchronous event resets the controller' event
