# Mediated devices of the guest's kernel: serial ports in software of its sample driver mtty, which can be migrated.
. /lib.sh
. /vfio.sh

TYPES=/sys/class/mdev_bus/mtty/mdev_supported_types
ONE=83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
TWO=83b8f4f2-509f-382f-3c1e-e6bfe0fa1002
CLI=/app/dist/cli/main.js

makes() {
  [ -d $TYPES ] || skip 'this kernel has no mtty'
  tool info $ONE 2>&1 | grep "there is no mediated device $ONE"
  for uuid in $ONE $TWO; do echo $uuid >$TYPES/mtty-2/create; done
}
shows() {
  tool info $ONE | tee /run/info
  grep 4348:3253 /run/info
}
busy() {
  exec 7<>/dev/vfio/$(basename "$(readlink /sys/bus/mdev/devices/$ONE/iommu_group)")
  device refused $ONE group | grep 'ERR_VFIO_USER_BUSY .*another process uses it'
}
proxied() {
  : >/run/proxy
  node $CLI serve vfio $ONE --socket /run/proxied >/run/proxy 2>&1 &
  proxy=$!
  trap "kill -KILL $proxy 2>/dev/null || true" EXIT
  within 60 grep -q 'Ctrl-C ends it' /run/proxy
  tool info /run/proxied | grep 4348:3253
  kill -INT $proxy
  wait $proxy
}
removes() {
  for uuid in $ONE $TWO; do echo 1 >/sys/bus/mdev/devices/$uuid/remove; done
  device refused $ONE group | grep "there is no mediated device $ONE"
}

check 'devices are made, of which none was there' makes
check 'info tells what one is' shows
check 'it has registers, interrupts and memory' all_ways mediated $ONE
check 'the state of one goes into the other' all_ways migrates $ONE $TWO
check 'what is no state of it is refused, and it goes on' all_ways no-state $ONE
check 'it logs the pages that it writes' all_ways logs $ONE
check 'one that another process has is busy' busy
check 'a proxy offers it' proxied
check 'one that was removed is not there' removes
