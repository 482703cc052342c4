# Linux ends in every way that it can, and finds the drive with its data again. The drive says which boot this is.
. /lib.sh

# Behind what is filled.
NOTE_AT=1024
boot=$(dd if=$DRIVE bs=4k skip=$NOTE_AT count=1 2>/dev/null | tr -d '\0')
boot=${boot:-first}

# Fills the drive for the next boot, and notes its name.
prepares() {
  fill "$1" 4 $DRIVE
  printf %s "$1" | dd of=$DRIVE bs=4k seek=$NOTE_AT count=1 conv=sync,fsync
}
is_there() { is_filled "$boot" 4 $DRIVE; }

# Kernel and initramfs are on two more drives: what the machine was started with is not in memory any longer.
loads() {
  modprobe virtio_blk
  within 10 test -b /dev/vdb
  cat /dev/vda >/run/kernel
  cat /dev/vdb >/run/initrd
  kexec --load /run/kernel --initrd=/run/initrd --reuse-cmdline
  rm /run/initrd
}

case $boot in
  first)
    prepares reboot
    reboot -f
    ;;
  reboot)
check 'its data is there after a reboot' is_there
    prepares reset
    host reset
    sleep 60
    ;;
  reset)
check 'its data is there after a reset of the machine' is_there
    prepares sysrq
    echo b >/proc/sysrq-trigger
    ;;
  sysrq)
check 'its data is there after a reboot without a shutdown (sysrq b)' is_there
    prepares crash
    echo c >/proc/sysrq-trigger
    ;;
  crash)
check 'its data is there after a crash of the kernel (sysrq c)' is_there
    prepares kexec
check 'a kernel is loaded by kexec' loads
    kexec --exec
    ;;
  kexec)
check 'its data is there after kexec' is_there
    ;;
esac
