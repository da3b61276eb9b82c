#!/usr/bin/env bash
# Runs the five commands of the README's "From nothing to the first result", in
# an empty folder and a network of their own, with the programs in bin/.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1-}" != --inside ]; then
	exec unshare -rn "$0" --inside
fi
ip link set lo up

PATH=$PWD/bin:$PATH
readme=$PWD/README.md
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
cd "$work"

# until_it_works COMMAND... tries it for ten seconds, as somebody does who waits for a program to be up.
until_it_works() {
	for _ in {1..100}; do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "this does not work within ten seconds: $*" >&2
	cat ./*.log >&2
	return 1
}

connected() { probectl --context ctl/operator.yaml get agents -o jsonl | grep -q '"state":"connected"'; }

mapfile -t commands < <(awk '/^Five commands/ { on = 1 } /^Nothing of it/ { exit } on && /^    / { print substr($0, 5) }' "$readme")
if [ ${#commands[@]} != 5 ]; then
	echo "the README has ${#commands[@]} commands there, and not five" >&2
	exit 1
fi
for i in "${!commands[@]}"; do
	printf '$ %s\n' "${commands[i]}"
	case $i in
	0)
		${commands[i]} >controller.log 2>&1 &
		until_it_works probectl --context ctl/operator.yaml whoami
		;;
	3)
		${commands[i]} >agent.log 2>&1 &
		until_it_works connected
		;;
	*) ${commands[i]} ;;
	esac
done
