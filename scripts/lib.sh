# SPDX-License-Identifier: GPL-2.0
# Common parts of the scripts in this directory: sourced by them, never run.
# shellcheck shell=sh

top=$(cd "$(dirname "$0")/.." && pwd -P)
: "${TENON_START:=$(date +%s)}"
export TENON_START

# The kernel series all of this is for, and the Debian release whose compilers
# and backports it comes from.
# shellcheck disable=SC2034 # For the scripts.
series=7.3 suite=trixie
# What a machine without build tree needs to build for the kernel it runs, apart
# from that kernel's headers. Where these come from backports, so does a library
# that libelf-dev has to be as new as.
# shellcheck disable=SC2034 # For the scripts.
needs="linux-source-$series rustc rust-src bindgen gcc-14 make flex bison bc python3 dwarves openssl libssl-dev libelf-dev/$suite-backports"

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
	# On a full disk the log itself may have stayed empty.
	_left=$(df -Pm "${2%/*}" 2>/dev/null | awk 'NR == 2 { print $4 }')
	if [ "${_left:-1}" = 0 ] || grep -qiE 'no space left on device|not enough free space|disk quota exceeded' "$2"; then
		die "$1: no space left: free some on the disk of ${2%/*}, or set XDG_CACHE_HOME to a larger one (log: $2)"
	elif _p=$(grep -m1 -oE 'Unable to locate package [^ ]+|Package .?[^ ]+ has no installation candidate|Version .* for .* was not found' "$2"); then
		die "$1: the mirror lacks a package ($_p): try another with DEBIAN_MIRROR=URL (log: $2)"
	elif grep -qiE 'could not resolve|connection refused|connection timed out|network is unreachable|failed to fetch|unable to connect|could not connect' "$2"; then
		die "$1: the Debian mirror does not answer: check the network, or name another with DEBIAN_MIRROR=URL (log: $2)"
	elif grep -qiE 'NO_PUBKEY|not signed|signatures couldn.t be verified' "$2"; then
		die "$1: this machine does not know the mirror's key: apt-get install --only-upgrade debian-archive-keyring (log: $2)"
	fi
	die "$1: $(grep -m1 -iE '^(E|error|fatal)[: ]|error:|no such file|not found|\*\*\* ' "$2" | cut -c1-200) (log: $2)"
}

# The base addresses of the Debian archives that this machine's apt knows.
mirrors() {
	if [ -n "${DEBIAN_MIRROR:-}" ]; then
		echo "$DEBIAN_MIRROR"
		return
	fi
	have apt-get || return 0
	# shellcheck disable=SC2016 # apt's own variables.
	apt-get indextargets --format '$(COMPONENT) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "main" && $2 !~ /security/ && !seen[$3]++ { print $3 }' |
		while read -r _uri; do
			case $_uri in
			mirror+file:*) # A file with one mirror in a line.
				_f=/$(echo "${_uri#*:}" | sed 's#^/*##; s#/$##')
				sed -n 's#^\([a-z+]*://[^[:space:]]*\).*#\1#p' "$_f" 2>/dev/null || : ;;
			*) echo "$_uri" ;;
			esac
		done
}

# Sets $mirror to the first that has what is needed, and $aptconf to a file
# with how this machine's apt reaches the network.
find_mirror() {
	aptconf=$cache/apt.conf
	apt-config dump 2>/dev/null |
		grep -E '^Acquire::((http|https|ftp)::|Check-|Retries|ForceIPv)' |
		grep -vi 'auto-detect' >"$aptconf" || :
	_all=$(mirrors)
	[ -n "$_all" ] || die "apt knows no Debian mirror here: set DEBIAN_MIRROR=URL, the directory that holds dists/"
	: >"$1"
	for mirror in $_all; do
		mirror=${mirror%/}
		_got=y
		for _s in "$suite" "$suite-backports"; do
			fetch "$mirror/dists/$_s/InRelease" "$cache/InRelease" >>"$1" 2>&1 || _got=
		done
		rm -f "$cache/InRelease"
		[ -z "$_got" ] || return 0
	done
	die "no answer with $suite and $suite-backports from $(echo "$_all" | paste -sd' '): check the network, or set DEBIAN_MIRROR=URL (log: $1)"
}

# Gets URL into FILE the way apt does, where there is an apt.
fetch() {
	rm -f "$2"
	if [ -x /usr/lib/apt/apt-helper ]; then
		APT_CONFIG=$aptconf /usr/lib/apt/apt-helper -o Acquire::Retries=1 -o Acquire::http::Timeout=20 \
			-o Acquire::https::Timeout=20 download-file "$1" "$2"
	elif have curl; then
		curl -fsSL --connect-timeout 20 -o "$2" "$1"
	else
		wget -q -T 20 -t 2 -O "$2" "$1"
	fi
}

# Exports what scripts/vars prints.
load_vars() { # [--running]
	_vars=$("$top/scripts/vars" ${1:+"$1"}) || exit 1
	while IFS='=' read -r _k _v; do
		export "$_k=$_v"
	done <<-EOT
	$_vars
	EOT
}
