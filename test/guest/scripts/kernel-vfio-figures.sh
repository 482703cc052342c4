# What registers and interrupts cost through the kernel's VFIO: a program in C, and one in TypeScript, on one device.
. /lib.sh
. /vfio.sh

in_c() {
  give $PLAIN
  /host/vfio-identify $(group $PLAIN) $PLAIN figures | tee /run/c
  grep -c '^figure' /run/c | grep -x 4
  sed -n 's/^figure /note C: /p' /run/c >&3
}
in_node() {
  device figures $PLAIN group >/run/node
  grep -c '^figure' /run/node | grep -x 6
  sed -n 's/^figure /note TypeScript: /p' /run/node >&3
}

check 'a program in C' in_c
check 'a program in TypeScript' in_node
