# File systems of Linux live on the drive: made, filled, mounted again, trimmed, checked; and a full host.
. /lib.sh

# fresh TYPE COMMAND...: makes a file system with the command, and mounts it.
fresh() {
  type=$1
  shift
  umount /mnt 2>/dev/null || true
  "$@" $DRIVE
  modprobe "$type" 2>/dev/null || true
  mount -t "$type" $DRIVE /mnt
}

keeps_files() {
  fresh "$@"
  for i in 1 2 3 4 5 6 7 8; do fill "file $i" 2 /mnt/$i; done
  rm /mnt/3
  mkdir /mnt/folder
  mv /mnt/4 /mnt/folder
  umount /mnt
  mount -t "$1" $DRIVE /mnt
  for i in 1 2 5 6 7 8; do is_filled "file $i" 2 /mnt/$i; done
  is_filled "file 4" 2 /mnt/folder/4
  [ ! -e /mnt/3 ]
  umount /mnt
}

trims() {
  offers 2 || skip 'the drive has no Dataset Management'
  mount -t "$1" $DRIVE /mnt
  fstrim -v /mnt
  is_filled "file 8" 2 /mnt/8
  umount /mnt
}

check 'ext4 keeps its files' keeps_files ext4 mkfs.ext4 -q -F
check 'ext4 is trimmed' trims ext4
check 'ext4 is without errors' e2fsck -f -n $DRIVE
check 'xfs keeps its files' keeps_files xfs mkfs.xfs -q -f
check 'xfs is trimmed' trims xfs
check 'xfs is without errors' xfs_repair -n $DRIVE
check 'btrfs keeps its files' keeps_files btrfs mkfs.btrfs -q -f
check 'btrfs is trimmed' trims btrfs
check 'btrfs is without errors' btrfs check $DRIVE
