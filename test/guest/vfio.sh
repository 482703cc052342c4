# What scripts about the kernel's VFIO share, beside lib.sh: Node and the package are in the guest (node-files.ts).
modprobe vfio-pci 2>/dev/null
modprobe vfio_iommu_type1 2>/dev/null
modprobe iommufd 2>/dev/null

tool() { node /app/dist/cli/main.js "$@"; }
device() { node /app/test/guest/programs/kernel-device.js "$@"; }

# The PCI address of the NVMe controller with a serial number, while its driver is nvme.
of() { for c in /sys/class/nvme/nvme*; do ! grep -q "^$1 *$" $c/serial || basename "$(readlink -f $c/device)"; done; }
driver() { basename "$(readlink -f /sys/bus/pci/devices/$1/driver)"; }

# The ways into this kernel, and a part of the program by each of them.
ways() { echo group; if [ -c /dev/iommu ] && [ -d /dev/vfio/devices ]; then echo iommufd; fi; }
all_ways() { for way in $(ways); do device "$@" $way; done; }

within 30 test -e /sys/class/nvme/nvme3/serial
PLAIN=$(of PLAIN) FIRST=$(of FIRST) SECOND=$(of SECOND)
# The controller of this package, through QEMU's vfio-user-pci.
OURS=$(for c in /sys/class/nvme/nvme*; do
  a=$(basename "$(readlink -f $c/device)")
  case "$PLAIN $FIRST $SECOND" in *$a*) ;; *) echo $a ;; esac
done)
