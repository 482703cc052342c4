#!/usr/bin/env bash
# Runs the native tests and the fuzzers with an addon that is compiled with AddressSanitizer and UndefinedBehaviorSanitizer.
# The addon goes to build/sanitize and is found by VFIO_USER_PREBUILD alone, so that nothing else ever loads it.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'HELP'
  npm run test:sanitize -- [--short | --seconds N] [--reports DIR]

  --seconds N     how long each fuzzer runs (default 300)
  --short         10 seconds for each fuzzer
  --reports DIR   writes the numbers of tests, as Jest's --json does, to files in DIR

Exit codes: 0 nothing was found, 1 something was found or a test failed, 2 wrong usage.
HELP
}

seconds=300
reports=
while [ $# -gt 0 ]; do
  case $1 in
    --short) seconds=10 ;;
    --seconds) seconds=${2:-}; shift ;;
    --reports) reports=${2:-}; shift ;;
    --help) usage; exit 0 ;;
    *) echo "unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift || { usage >&2; exit 2; }
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "--seconds is an integer from 1 on, not '$seconds'" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo 'sanitizers: compiling the addon'
mkdir -p build/sanitize
cp -r binding.gyp package.json native build/sanitize
sanitize='-fsanitize=address,undefined'
(
  cd build/sanitize
  CXXFLAGS="$sanitize -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g" LDFLAGS="$sanitize" MAKEFLAGS=-s \
    ../../node_modules/.bin/node-gyp configure build --jobs=max --loglevel=error
)

# Node.js itself is not instrumented, so the runtimes have to come first. SIGBUS is the addon's. LeakSanitizer does not know the
# heap of V8: what only that refers to at the end of a process would be a leak.
sanitized() {
  env LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)" \
    ASAN_OPTIONS="detect_leaks=0:handle_sigbus=0:abort_on_error=1:log_path=$work/report" \
    UBSAN_OPTIONS="print_stacktrace=1:log_path=$work/report" \
    VFIO_USER_PREBUILD="$PWD/build/sanitize" "$@"
}

status=0
echo 'sanitizers: native tests and lifetime tests'
# The test of cycles measures memory, which a sanitizer keeps for a while after it was freed.
sanitized npx jest -w 2 test/native test/lifetime --testPathIgnorePatterns lifetime/cycles ${reports:+--json --outputFile="$reports/sanitized.json"} || status=1

passed=0
failed=0
for role in server client nvme-host nvme-controller; do
  echo "sanitizers: fuzzing $role for $seconds s"
  if sanitized node build/fuzz/test/fuzz/main.js --role "$role" --seconds "$seconds" >"$work/fuzz.log" 2>&1; then
    tail -n 1 "$work/fuzz.log"
    passed=$((passed + 1))
  else
    cat "$work/fuzz.log"
    failed=$((failed + 1))
    status=1
  fi
done

# A report fails the run also where the process that made it was meant to fail.
for report in "$work"/report.*; do
  [ -e "$report" ] || continue
  cat "$report"
  status=1
done

# ThreadSanitizer cannot run in a Node.js that is not instrumented: the SIGBUS guard has a test program of its own.
npm run --silent --if-present test:guard || status=1

if [ -n "$reports" ]; then
  printf '{"numPassedTests":%d,"numFailedTests":%d,"numRuntimeErrorTestSuites":0,"numPendingTests":0}\n' \
    "$passed" "$failed" >"$reports/fuzzers.json"
fi
[ $status -eq 0 ] && echo 'sanitizers: nothing found'
exit $status
