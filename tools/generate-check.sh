#!/bin/sh
# Generates the code of the .proto files aside and compares it with what lies
# in the tree: generate-check.sh BUF
set -eu

buf=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/have" "$work/want"
find proto controller/web -name '*.pb*.go' -exec sh -c '
	for file do mkdir -p "$0/$(dirname "$file")" && cp "$file" "$0/$file"; done' "$work/have" {} +
"$buf" generate -o "$work/want"
if ! diff -ru "$work/have" "$work/want"; then
	echo "the generated code is not what the .proto files give: run make generate" >&2
	exit 1
fi
