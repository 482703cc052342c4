# What guest scripts use. A script is a list of checks, each a line of its own
#
#   check 'what is so' COMMAND WORD...
#
# and the functions that they call. In a check every command has to succeed (set -e). The host reads the names of the checks in
# the script and waits for the outcome of each.

DRIVE=/dev/nvme0n1

# One line to the host.
report() { printf '%s\n' "$*" >&3; }

# Asks the host for something, as `host unplug`, and waits until it is done.
host() {
  report "host $*"
  read -r answer <&3
  [ "$answer" = done ] || { echo "the host says: $answer"; return 1; }
}

# Runs a command as a check of this name. When WHY_NOT is set, that is why all are skipped.
WHY_NOT=
check() {
  name=$1
  shift
  if [ -n "$WHY_NOT" ]; then
    report "skipped $name: $WHY_NOT"
    return
  fi
  report "begin $name"
  # What it says is on the console at once: a guest that says nothing for long is taken to hang.
  { (set -ex; "$@"); echo $? >/run/status; } 2>&1 </dev/null | tee /run/said
  case $(cat /run/status) in
    0) report "ok $name" ;;
    77) report "skipped $name: $(cat /run/why)" ;;
    *)
      tail -n 20 /run/said | sed 's/^/said /' >&3
      report "failed $name"
      ;;
  esac
}

# Ends a check that makes no sense here, and says why.
skip() {
  echo "$*" >/run/why
  exit 77
}

# Waits until a command succeeds, for so many seconds.
within() {
  left=$(($1 * 10))
  shift
  until "$@"; do
    left=$((left - 1))
    [ $left -gt 0 ] || { echo "did not come true: $*"; return 1; }
    sleep 0.1
  done
}

# Succeeds when a command fails.
fails() { if "$@"; then return 1; fi; }

# The PCI address of the drive, such as 0000:00:05.0, and its folder in sysfs.
address() { basename "$(readlink -f /sys/class/nvme/nvme0/device)"; }
device() { readlink -f /sys/class/nvme/nvme0/device; }

# Offers the controller an optional command? The bit of ONCS (NVM Express Base 2.1, figure 328): `offers 2` is Dataset Management.
offers() {
  oncs=$(nvme id-ctrl /dev/nvme0 | sed -n 's/^oncs *: *//p')
  [ $((oncs >> $1 & 1)) = 1 ]
}

# So many MiB that follow from a word alone, in /run/pattern. There are few pipes on the way: each KiB or so that is in one wakes
# the other side, which takes long where the processor is emulated.
pattern() {
  yes "$1" | head -c 1048576 >/run/mebibyte
  for _ in $(seq "$2"); do cat /run/mebibyte; done >/run/pattern
}
# `fill WORD MIB TARGET` writes them, and `is_filled` compares with them.
fill() {
  case $3 in /dev/*) test -b "$3" || { echo "there is no $3"; return 1; } ;; esac
  pattern "$1" "$2"
  dd if=/run/pattern of="$3" bs=1M conv=fsync
}
is_filled() {
  pattern "$1" "$2"
  cmp -n $(($2 << 20)) /run/pattern "$3"
}

# What Linux has complained of since its start about the drive.
complaints() { dmesg | grep -E 'nvme.*(timeout|I/O error|reset|abort|remov)' || true; }
