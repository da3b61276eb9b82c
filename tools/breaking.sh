#!/bin/sh
# Compares the .proto files with those of an earlier commit: breaking.sh BUF [COMMIT]
# The default is the tip of main or, standing on it, the commit before.
set -eu

buf=$1
against=${2:-}

commit() { git rev-parse --quiet --verify "$1^{commit}"; }

if [ -n "$against" ]; then
	base=$(commit "$against") || { echo "no such commit: $against" >&2; exit 1; }
else
	base=$(commit origin/main || commit main || true)
	if [ -n "$base" ] && [ "$base" = "$(commit HEAD)" ]; then
		base=$(commit 'HEAD^' || true)
	fi
fi
if [ -z "$base" ] || ! git cat-file -e "$base:buf.yaml" 2>/dev/null; then
	echo "nothing to compare with: there is no earlier commit that has an API"
	exit 0
fi

echo "comparing with $(git log -1 --format='%h (%s)' "$base")"
git archive "$base" buf.yaml proto third_party | "$buf" breaking --against '-#format=tar'
