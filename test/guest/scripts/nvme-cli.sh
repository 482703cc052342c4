# Commands of nvme-cli. What the drive does not offer (ONCS, OACS) is skipped.
. /lib.sh

CONTROLLER=/dev/nvme0

# A field of Identify Controller, such as `field oncs`.
field() { nvme id-ctrl $CONTROLLER | sed -n "s/^$1 *: *//p"; }
manages() { [ $(($(field oacs) >> $1 & 1)) = 1 ]; }

# The pattern of this letter, one block long, in a file.
block() { yes "$1" | head -c 512; }
write_block() { block "$2" | nvme write $DRIVE --start-block="$1" --block-count=0 --data-size=512; }
is_block() { nvme read $DRIVE --start-block="$1" --block-count=0 --data-size=512 2>/dev/null | head -c 512 | cmp -n 512 - "$2"; }

identifies() {
  nvme id-ctrl $CONTROLLER -H
  nvme id-ns $DRIVE -H
  nvme ns-descs $DRIVE
  nvme list-ns $CONTROLLER | grep 0x1
  nvme list | grep $DRIVE
  nvme list-subsys
}
has_logs() {
  nvme smart-log $CONTROLLER | grep -E '^critical_warning[[:space:]]*: 0'
  nvme error-log $CONTROLLER
  nvme fw-log $CONTROLLER
  nvme effects-log $CONTROLLER
  nvme supported-log-pages $CONTROLLER
  nvme changed-ns-list-log $CONTROLLER
}
has_registers() { nvme show-regs $CONTROLLER -H; }

# Arbitration, power, temperature, error recovery, queues, coalescing, atomicity, events (NVM Express Base 2.1, section 5.1.25).
has_features() {
  for feature in 1 2 4 7 8 0xa 0xb; do nvme get-feature $CONTROLLER --feature-id=$feature -H; done
  nvme get-feature $DRIVE --feature-id=5 --namespace-id=1
  nvme set-feature $CONTROLLER --feature-id=4 --value=350
  nvme get-feature $CONTROLLER --feature-id=4 | grep -i '0x0*15e'
}
reads_and_writes() {
  write_block 7 seven
  write_block 8 eight
  block seven >/run/seven
  block eight >/run/eight
  is_block 7 /run/seven
  is_block 8 /run/eight
  nvme flush $DRIVE
}
compares() {
  offers 0 || skip 'no Compare'
  write_block 9 nine
  block nine | nvme compare $DRIVE --start-block=9 --block-count=0 --data-size=512
  fails sh -c "yes ten | head -c 512 | nvme compare $DRIVE --start-block=9 --block-count=0 --data-size=512"
}
deallocates() {
  offers 2 || skip 'no Dataset Management'
  write_block 16 gone
  write_block 17 kept
  nvme dsm $DRIVE --ad --slbs=16 --blocks=1
  block kept >/run/kept
  is_block 17 /run/kept
}
writes_zeroes() {
  offers 3 || skip 'no Write Zeroes'
  write_block 18 gone
  nvme write-zeroes $DRIVE --start-block=18 --block-count=0
  is_block 18 /dev/zero
}
verifies() {
  offers 7 || skip 'no Verify'
  nvme verify $DRIVE --start-block=0 --block-count=7
}
fails_what_is_uncorrectable() {
  offers 1 || skip 'no Write Uncorrectable'
  nvme write-uncor $DRIVE --start-block=24 --block-count=0
  fails nvme read $DRIVE --start-block=24 --block-count=0 --data-size=512
  nvme error-log $CONTROLLER --log-entries=1 | grep -E '^lba[[:space:]]*: *(24|0x18)$'
  write_block 24 again
  block again >/run/again
  is_block 24 /run/again
}
copies() {
  offers 8 || skip 'no Copy'
  write_block 32 copied
  nvme copy $DRIVE --sdlba=40 --slbs=32 --blocks=0
  block copied >/run/copied
  is_block 40 /run/copied
}
formats() {
  manages 1 || skip 'no Format NVM'
  write_block 3 gone
  nvme format $DRIVE --lbaf=0 --force
  within 10 is_block 3 /dev/zero
}
# Another LBA format is that of the drive, and of its size, which stays the same in bytes.
formats_with_larger_blocks() {
  manages 1 || skip 'no Format NVM'
  bytes=$(blockdev --getsize64 $DRIVE)
  nvme format $DRIVE --lbaf=1 --force
  within 10 sh -c "[ \"\$(blockdev --getss $DRIVE)\" = 4096 ]"
  [ "$(blockdev --getsize64 $DRIVE)" = "$bytes" ]
  yes larger | head -c 4096 >/run/larger
  dd if=/run/larger of=$DRIVE bs=4096 seek=1 oflag=direct
  dd if=$DRIVE bs=4096 skip=1 count=1 iflag=direct | cmp - /run/larger
  nvme format $DRIVE --block-size=512 --ses=1 --force
  within 10 sh -c "[ \"\$(blockdev --getss $DRIVE)\" = 512 ]"
  within 10 is_block 8 /dev/zero
}

# The namespace is the second of the drive, 16 MiB of 4096 bytes a block.
makes_a_namespace() {
  manages 3 || skip 'no Namespace Management'
  nvme create-ns $CONTROLLER --nsze=4096 --ncap=4096 --flbas=1 | grep 'nsid:2'
  nvme list-ns $CONTROLLER --all | grep 0x2
  fails nvme attach-ns $CONTROLLER --namespace-id=2 --controllers=7
  nvme attach-ns $CONTROLLER --namespace-id=2 --controllers=1
  fails nvme attach-ns $CONTROLLER --namespace-id=2 --controllers=1
  within 10 [ -b /dev/nvme0n2 ]
  [ "$(blockdev --getsize64 /dev/nvme0n2)" = 16777216 ]
  dd if=/run/seven of=/run/page bs=4096 conv=sync
  dd if=/run/page of=/dev/nvme0n2 bs=4096 seek=4095 oflag=direct
  dd if=/dev/nvme0n2 bs=4096 skip=4095 iflag=direct | cmp - /run/page
}
deletes_a_namespace() {
  manages 3 || skip 'no Namespace Management'
  nvme detach-ns $CONTROLLER --namespace-id=2 --controllers=1
  within 10 [ ! -e /dev/nvme0n2 ]
  nvme attach-ns $CONTROLLER --namespace-id=2 --controllers=1
  within 10 [ -b /dev/nvme0n2 ]
  nvme delete-ns $CONTROLLER --namespace-id=2
  within 10 [ ! -e /dev/nvme0n2 ]
  fails nvme create-ns $CONTROLLER --nsze=999999999 --ncap=999999999 --flbas=0
  fails nvme delete-ns $CONTROLLER --namespace-id=1
  [ -b $DRIVE ]
}
refuses() {
  fails nvme read $DRIVE --start-block=0xffffffff --block-count=0 --data-size=512
  fails nvme get-feature $CONTROLLER --feature-id=0x7f
  fails nvme get-log $CONTROLLER --log-id=0x7f --log-len=512
  fails nvme admin-passthru $CONTROLLER --opcode=0xbf
  is_block 7 /run/seven
}

check 'it is identified' identifies
check 'its log pages are there' has_logs
check 'its registers are shown' has_registers
check 'its features are read and set' has_features
check 'blocks are written, read and flushed' reads_and_writes
check 'Compare' compares
check 'Dataset Management' deallocates
check 'Write Zeroes' writes_zeroes
check 'Verify' verifies
check 'Write Uncorrectable' fails_what_is_uncorrectable
check 'Copy' copies
check 'what is wrong is refused' refuses
check 'Format NVM' formats
check 'Format NVM with blocks of another size' formats_with_larger_blocks
check 'a namespace is made, attached and used' makes_a_namespace
check 'a namespace is detached, attached again and deleted' deletes_a_namespace
