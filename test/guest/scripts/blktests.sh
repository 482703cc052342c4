# The tests of blktests that take a device; the host has it in its folder.
. /lib.sh

cd /host || exit
ln -sf /usr/bin/gawk /usr/bin/awk
echo "TEST_DEVS=($DRIVE)" >config
export TERM=dumb

# passes GROUP: runs what of a group takes a device. What a failed test had said is behind its name.
passes() {
  ./check --device-only --quick=10 "$1" 2>&1 | tee /run/group || true
  grep -q '\[passed\]' /run/group
  fails grep -A 15 '\[failed\]' /run/group
}

check 'no test of the group block fails' passes block
check 'no test of the group nvme fails' passes nvme
