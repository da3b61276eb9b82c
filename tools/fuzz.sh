#!/usr/bin/env bash
# Runs every fuzz target for some time, as many at once as there are cores:
# fuzz.sh [TIME [PACKAGE...]]; without a package it is all of the module.
set -euo pipefail

# ended_late says whether a failure is only that of golang/go#75804 (fixed in Go
# 1.27): the time was up while a worker was busy. Then the log holds this and
# nothing else; whatever a target finds is written there as well.
ended_late() {
	grep -qx '    context deadline exceeded' "$1" &&
		! grep -qvE '^(fuzz: elapsed: |warning: starting with empty corpus$|--- FAIL: |    context deadline exceeded$|FAIL|exit status 1$)' "$1"
}

# one runs a single target, and prints in one piece what came of it.
one() {
	local time=$1 package=$2 target=$3 log=$work/$$.log
	if go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -parallel 1 -fuzzminimizetime 1s "$package" </dev/null >"$log" 2>&1 || ended_late "$log"; then
		printf '== %s %s: %s\n' "$package" "$target" "$(grep '^fuzz: elapsed' "$log" | tail -n 1)"
	else
		printf '== %s %s: FAILED\n%s\n' "$package" "$target" "$(<"$log")"
		return 1
	fi
}

if [ "${1-}" = --one ]; then
	one "${@:2}"
	exit
fi

time=${1:-60s}
packages=("${@:2}")
cd "$(dirname "$0")/.."

work=$(mktemp -d)
export work
trap 'rm -rf "$work"' EXIT

# `go test -list` prints the targets of a package, then one line that names it.
listed=$(go test -list '^Fuzz' "${packages[@]:-./...}") || {
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

echo "$(wc -l <<<"$targets") targets, $time each, $(nproc) at a time"
xargs -P "$(nproc)" -n 2 tools/fuzz.sh --one "$time" <<<"$targets"
