#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Usage: bpftrace OPTION... 'kprobe:FUNCTION { @NAME = count(); } interval:s:SECONDS { exit(); }'
#
# Stands in for bpftrace in the guests that run the kernel's own tests of network
# drivers: counts the calls of a function for so many seconds, and prints the
# number in JSON. bpftrace itself is not ready within ten minutes there.

set -eu

for program; do :; done
words=$(printf '%s\n' "$program" |
	sed -nE 's/^kprobe:(\w+) \{ @(\w+) = count\(\); \} interval:s:([0-9]+) \{ exit\(\); \}$/\1 \2 \3/p')
[ -n "$words" ] || { echo "bpftrace: this one cannot run '$program'" >&2; exit 1; }
# shellcheck disable=SC2086 # Three words.
set -- $words

test -e /sys/kernel/tracing/kprobe_events || mount -t tracefs tracefs /sys/kernel/tracing
cd /sys/kernel/tracing
event=events/kprobes/bpftrace_$2
echo "p:bpftrace_$2 $1" >>kprobe_events
trap 'echo 0 >$event/enable; echo "-:${event##*/}" >>kprobe_events' EXIT
echo 1 >"$event/enable"
sleep "$3"
awk -v event="${event##*/}" -v name="@$2" \
	'$1 == event { printf "{\"type\": \"map\", \"data\": {\"%s\": %d}}\n", name, $2 }' kprobe_profile
