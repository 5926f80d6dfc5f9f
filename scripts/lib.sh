# SPDX-License-Identifier: GPL-2.0
# Common parts of the scripts in this directory: sourced by them, never run.
# shellcheck shell=sh

top=$(cd "$(dirname "$0")/.." && pwd -P)
: "${TENON_START:=$(date +%s)}"
export TENON_START

# The kernel series all of this is for: a new series is a new line in the
# table of kernels, not a matter of bumping a number.
series=7.3

say() { printf 'tenon: %s\n' "$*" >&2; }

# One line that says what is wrong and what to do about it.
die() {
	printf 'tenon: error: %s\n' "$*" >&2
	exit 1
}

# Progress: WHAT [N/M] with the time since the first script of this run.
step() {
	_s=$(($(date +%s) - TENON_START))
	printf 'tenon: %s [%s, %d:%02d] %s\n' "$1" "$2" $((_s / 60)) $((_s % 60)) "$3" >&2
}

# Prints the head comment of the script, which is its manual.
usage() { sed -n '3,${/^#/!q;s/^# \{0,1\}//p;}' "$0"; }

have() { command -v "$1" >/dev/null 2>&1; }

# Sets $cache, where everything is kept that can be made again.
need_cache() {
	if [ -n "${XDG_CACHE_HOME:-}" ]; then
		cache=$XDG_CACHE_HOME/tenon
	elif [ -n "${HOME:-}" ]; then
		cache=$HOME/.cache/tenon
	else
		die "neither HOME nor XDG_CACHE_HOME is set: set one, the build tree is kept below it"
	fi
	case $cache in
	*[[:space:]:]* | [!/]*) die "the cache directory '$cache' must be an absolute path without spaces and colons (kbuild cannot handle them): set XDG_CACHE_HOME" ;;
	esac
	mkdir -p "$cache/log" 2>/dev/null || die "cannot write to $cache: free it or set XDG_CACHE_HOME to a directory of yours"
}

# Takes the lock NAME for as long as the script runs; WHAT is being made.
lock() {
	need_cache
	exec 9>"$cache/$1.lock"
	flock -n 9 && return
	say "another run is making $2: waiting for it"
	flock 9
}

# Removes a tree that may be half made, without following mounts.
discard() { rm -rf --one-file-system -- "$@"; }

# Dies unless the cache's file system has MIB free.
need_space() {
	_free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	[ "$_free" -ge "$1" ] || die "$cache has $_free MiB free and $2 needs $1: free some, or set XDG_CACHE_HOME to a larger disk"
}

# Explains the failure of WHAT from its LOG in one line.
die_log() {
	if grep -qiE 'no space left on device|not enough free space|disk quota exceeded' "$2"; then
		die "$1: no space left: free some on $cache, or set XDG_CACHE_HOME to a larger disk (log: $2)"
	elif _p=$(grep -m1 -oE 'Unable to locate package [^ ]+|Package .?[^ ]+ has no installation candidate|Version .* for .* was not found' "$2"); then
		die "$1: the mirror lacks a package ($_p): try another with DEBIAN_MIRROR=URL (log: $2)"
	elif grep -qiE 'could not resolve|connection refused|connection timed out|network is unreachable|failed to fetch|unable to connect|could not connect' "$2"; then
		die "$1: the Debian mirror does not answer: check the network, or name another with DEBIAN_MIRROR=URL (log: $2)"
	elif grep -qiE 'NO_PUBKEY|not signed|signatures couldn.t be verified' "$2"; then
		die "$1: this machine does not know the mirror's key: apt-get install --only-upgrade debian-archive-keyring (log: $2)"
	fi
	die "$1: $(grep -m1 -iE '^(E|error|fatal)[: ]|error:' "$2" | cut -c1-200) (log: $2)"
}
