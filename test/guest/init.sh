#!/bin/sh
# The first process of a guest. It mounts what a system has, waits for the drive, and runs /run.sh, whose file descriptor 3 is
# the line to the host (lib.sh). Words of the kernel's command line: guest.drive=none when there is no drive at first.
export PATH=/usr/sbin:/usr/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t debugfs debug /sys/kernel/debug
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
# Linux waits with the devices behind a virtio IOMMU until its driver is there.
modprobe virtio_iommu 2>/dev/null

. /lib.sh
grep -q guest.drive=none /proc/cmdline || within 30 test -b "$DRIVE"
report "up $(cut -d' ' -f1 /proc/uptime) s, Linux $(uname -r)"
sh /run.sh
report "end $?"
sync
poweroff -f
