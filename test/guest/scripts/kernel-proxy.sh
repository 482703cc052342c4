# A PCI device of the guest that one process offers by a socket, and others use: `vfio-user serve vfio` over the kernel's VFIO.
. /lib.sh
. /vfio.sh

SOCKET=/run/proxied
TRACE=/run/trace
CLI=/app/dist/cli/main.js

# Starts a proxy of the device, with more options. Its process is $proxy, which does not outlive the check.
begin_proxy() {
  : >/run/proxy
  node $CLI serve vfio $PLAIN --socket $SOCKET "$@" >/run/proxy 2>&1 &
  proxy=$!
  trap "kill -KILL $proxy 2>/dev/null || true" EXIT
  within 60 grep -q 'Ctrl-C ends it' /run/proxy
}
# Which node of VFIO it has open: that of an iommufd where the kernel has one, else the container.
goes_by() { ls -l /proc/$proxy/fd | grep " $1\$"; }
ends_proxy() {
  kill -INT $proxy
  wait $proxy
  fails grep vfio-user: /run/proxy
}
# Ends with a status, and says something.
proxy_ended() {
  status=0
  wait $proxy || status=$?
  cat /run/proxy
  [ $status = $1 ]
  grep "$2" /run/proxy
}
verifies() { tool bench $SOCKET --rw write --size 1m --verify "$@" | grep 'all as written'; }

# A benchmark that has begun, and goes on for ever. Its process is $client.
begin_bench() {
  : >/run/client
  node $CLI bench $SOCKET --runtime 3600 --completion interrupt --status-interval 1 >/run/client 2>&1 &
  client=$!
  within 60 grep -q IOPS /run/client
}
# A program that reads, and is asked for the device (programs/proxied-device.ts).
begin_reading() {
  : >/run/client
  alone $1 $SOCKET socket >/run/client 2>&1 &
  client=$!
  within 60 grep -q waiting /run/client
}
client_ended() {
  status=0
  wait $client || status=$?
  cat /run/client
  [ $status = $1 ]
}
# Bit 2 of the command register, bus master.
is_quiet() { [ $((0x$(setpci -s $PLAIN COMMAND) & 4)) = 0 ]; }

serves() {
  give $PLAIN
  begin_proxy
  if [ -c /dev/iommu ]; then goes_by /dev/iommu; else goes_by /dev/vfio/vfio; fi
  verifies
  verifies --completion interrupt
  device proxied $SOCKET socket
  ends_proxy
}
traces() {
  begin_proxy --trace $TRACE
  verifies --completion interrupt
  ends_proxy
  for line in 'attach client 1' 'read   bar0 0x0+8 0x' 'map    0x100000000+0x200000 rw$' 'irqs   msix 0.* trigger by eventfd' \
    'write  bar0 0x1008+4 0x0' 'signal msix 1' 'irqs   msix disable' 'unmap  0x100000000+0x200000' 'detach client 1' 'reset$'; do
    grep -m 1 "$line" $TRACE
  done
}
client_killed() {
  begin_proxy
  for _ in 1 2; do
    begin_bench
    fails is_quiet
    kill -KILL $client
    within 10 is_quiet
  done
  verifies
  ends_proxy
}
proxy_killed() {
  begin_proxy
  begin_bench
  kill -KILL $proxy
  client_ended 3
  within 10 is_quiet
  begin_proxy
  verifies
  ends_proxy
}
# The benchmark does not ask to be told, and loses the device at once.
asked_back() {
  begin_proxy
  begin_bench
  echo $PLAIN >/sys/bus/pci/drivers/vfio-pci/unbind
  proxy_ended 3 'was asked back: it is being unbound or was unplugged'
  client_ended 3
  give $PLAIN
}
# A client that is told lets go of it.
unplugged() {
  begin_proxy
  begin_reading told
  host unplug
  client_ended 0
  proxy_ended 3 'was asked back'
  within 10 test ! -e /sys/bus/pci/devices/$PLAIN
  host plug
  within 30 is_back
}
is_back() { [ -n "$(of PLAIN)" ]; }
keeps() {
  begin_proxy
  begin_reading keeps
  echo $PLAIN >/sys/bus/pci/drivers/vfio-pci/unbind
  client_ended 0
  proxy_ended 3 'was asked back'
  give $PLAIN
}
goes_back() {
  tool bind $PLAIN
  begin_proxy
  verifies
  ends_proxy
  tool unbind $PLAIN
  [ "$(driver $PLAIN)" = nvme ]
  within 30 is_back
}

check 'what was written through a proxy is read, and the device does what every device does' serves
check 'a trace has what was done, and the interrupts' traces
check 'a client that is killed leaves the device quiet, for the next one' client_killed
check 'a proxy that is killed ends its client, and leaves the device to the next proxy' proxy_killed
check 'a device that is asked back ends its proxy, and a client that did not ask to be told' asked_back
check 'a client that keeps a device that is asked back loses it' keeps
check 'a client that is told of it lets go of a device that is unplugged' unplugged
check 'the device goes back to its driver' goes_back
