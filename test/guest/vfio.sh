# What scripts about the kernel's VFIO share, beside lib.sh: Node and the package are in the guest (node-files.ts).
modprobe vfio-pci 2>/dev/null
modprobe vfio_iommu_type1 2>/dev/null
modprobe iommufd 2>/dev/null

tool() { node /app/dist/cli/main.js "$@"; }

# `device PART ADDRESS… WAY` has programs/kernel-device.ts do a part: in the one process that is there for all of them, as Node takes
# seconds to start here, or in a process of its own with `alone`.
PROGRAM=/app/test/guest/programs/kernel-device.js
mkfifo /run/ask /run/answers
node $PROGRAM </run/ask >/run/answers 2>&1 &
exec 4>/run/ask 5</run/answers
device() {
  set +x
  echo "$*" >&4
  while read -r answer <&5; do
    echo "$answer"
    case $answer in 'so it is') set -x; return 0 ;; 'not so') return 1 ;; esac
  done
  echo 'the process has ended'
  return 1
}
alone() { node $PROGRAM "$@"; }

# Takes a function from its driver, as `vfio-user bind` does.
give() {
  echo vfio-pci >/sys/bus/pci/devices/$1/driver_override
  [ ! -e /sys/bus/pci/devices/$1/driver ] || echo $1 >/sys/bus/pci/devices/$1/driver/unbind
  echo $1 >/sys/bus/pci/drivers_probe
  [ "$(driver $1)" = vfio-pci ]
}

# The PCI address of the NVMe controller with a serial number, while its driver is nvme.
of() { for c in /sys/class/nvme/nvme*; do ! grep -q "^$1 *$" $c/serial || basename "$(readlink -f $c/device)"; done; }
driver() { basename "$(readlink -f /sys/bus/pci/devices/$1/driver)"; }
group() { echo /dev/vfio/$(basename "$(readlink /sys/bus/pci/devices/$1/iommu_group)"); }

# The ways into this kernel, and a part by each of them.
ways() { echo group; if [ -c /dev/iommu ] && [ -d /dev/vfio/devices ]; then echo iommufd; fi; }
all_ways() { for way in $(ways); do device "$@" $way; done; }
by_iommufd() {
  [ -c /dev/iommu ] || skip "this kernel has no iommufd"
  device "$@" iommufd
}

within 60 test -e /sys/class/nvme/nvme4/serial
PLAIN=$(of PLAIN) FIRST=$(of FIRST) SECOND=$(of SECOND) OURS=$(of OURS) PHYSICAL=$(of PHYSICAL)
