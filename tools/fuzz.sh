#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other: fuzz.sh [TIME]
set -euo pipefail

time=${1:-60s}
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# ended_late says whether a failure is only that of golang/go#75804 (fixed in Go
# 1.27): the time was up while a worker was busy. Then the log holds this and
# nothing else; whatever a target finds is written there as well.
ended_late() {
	grep -qx '    context deadline exceeded' "$log" &&
		! grep -qvE '^(fuzz: elapsed: |warning: starting with empty corpus$|--- FAIL: |    context deadline exceeded$|FAIL|exit status 1$)' "$log"
}

# `go test -list` prints the targets of a package, then one line that names it.
listed=$(go test -list '^Fuzz' ./...) || {
	printf '%s\n' "$listed" >&2
	exit 1
}
targets=$(awk '
	/^Fuzz/    { name[++n] = $1 }
	$1 == "ok" { for (i = 1; i <= n; i++) print $2, name[i]; n = 0 }' <<<"$listed")
if [ -z "$targets" ]; then
	echo "no fuzz targets found" >&2
	exit 1
fi

while read -r package target; do
	echo "== $package $target, $time"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" </dev/null 2>&1 | tee "$log" || ended_late
done <<<"$targets"
