#!/usr/bin/env bash
# Watches results with the client of docs/clients/node, which is none of ours, while
# the controller is killed and started again under load, and compares what it got
# with what is stored. Programs are those in bin/; the network is one of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1-}" != --inside ]; then
	exec unshare -rn "$0" --inside
fi
ip link set lo up

RESTARTS=3
SOME=300 # results that come between two events

PATH=$PWD/bin:$PATH
client=$PWD/docs/clients/node
work=$(mktemp -d)
finish() {
	local code=$?
	if [ $code != 0 ]; then tail -n 20 "$work"/*.log >&2 || true; fi
	# shellcheck disable=SC2046 # a word for each
	kill $(jobs -p) 2>/dev/null || true
	wait
	rm -rf "$work"
}
trap finish EXIT
cd "$work"
export PROBECTL_CONTEXT=$work/ctl/operator.yaml

# until_true SECONDS COMMAND... waits until the command succeeds.
until_true() {
	local tries=$(($1 * 5))
	shift
	while ((tries-- > 0)); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.2
	done
	echo "this has not become true in time: $*" >&2
	return 1
}

start_controller() {
	probe-controller --data ctl --listen 127.0.0.1:7400 --http "" --advertise 127.0.0.1 --gossip-listen 127.0.0.1:7946 2>>controller.log &
	controller=$!
	until_true 30 probectl whoami
}

# start_agent NUMBER NAME starts an agent at ports of its own.
start_agent() {
	probectl token create --agent "$2" --token-file "$2.token" 2>>enrol.log
	probe-agent enroll --controller 127.0.0.1:7400 --token-file "$2.token" --state "$2" 2>>enrol.log >&2
	probe-agent --controller 127.0.0.1:7400 --state "$2" --label dc="${2%-*}" --responder "127.0.0.1:741$1" \
		--gossip-listen "127.0.0.1:1794$1" --join 127.0.0.1:7946 --advertise 127.0.0.1 2>>"$2.log" &
}

start_client() {
	node "$client/watch.js" viewer.yaml --source measurements/load --cursor-file cursor >>watched.jsonl 2>>client.log &
	watcher=$!
	until_true 30 test -s cursor
}

watched() { wc -l <watched.jsonl; }

# more waits until so many more results have been watched.
more() {
	local goal=$(($(watched) + $1))
	until_true 60 eval "[ \$(watched) -ge $goal ]"
}

connected() { [ "$(probectl get agents -o jsonl | grep -c '"state":"connected"')" = "$1" ]; }
export_to() { probectl export load --since 1h -o "${1##*.}" --file "$1" 2>>export.log; }

# settled tells whether the agents have handed over all and measure no more.
settled() {
	[ "$(probectl get agents -o jsonl | grep -c '"backlog":0,')" = 3 ] || return
	export_to before.jsonl
	sleep 1
	export_to stored.jsonl
	cmp before.jsonl stored.jsonl
}

start_controller
probectl user create viewer --role viewer --file viewer.yaml 2>>enrol.log >&2
start_agent 1 fra-1
start_agent 2 nyc-1
start_agent 3 sin-1
until_true 30 connected 3
start_client
cat >load.yaml <<-'END'
	measurements:
	- name: load
	  mesh: {}
	  interval: 0.02s
	  budget: 200
END
probectl apply -f load.yaml >&2
more $SOME
for ((n = 1; n <= RESTARTS; n++)); do
	before=$(watched)
	kill -9 $controller
	wait $controller 2>/dev/null || true
	sleep 1 # agents go on measuring
	start_controller
	until_true 90 connected 3 # they come back one by one
	more $SOME
	echo "restart $n of the controller, after $before results; then $(($(watched) - before)) more"
done
kill $watcher
wait $watcher
echo "restart of the client, after $(watched) results"
start_client
more $SOME

probectl delete measurement load >&2
until_true 90 settled
export_to stored.parquet
stored=$(wc -l <stored.jsonl)
until_true 30 eval "[ \$(watched) -ge $stored ]"
kill $watcher
wait $watcher
broken=$(grep -c 'the stream broke off' client.log || true)
echo "times the client's stream broke off: $broken"
[ "$broken" -ge $RESTARTS ]
echo "produced by the agents: $(probectl get agents -o jsonl | awk -F'"produced":' '{ n += $2 + 0 } END { print n }')"
node "$client/compare.js" watched.jsonl stored.jsonl stored.parquet
