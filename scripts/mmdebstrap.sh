# SPDX-License-Identifier: GPL-2.0
# How Debian trees are made: sourced by the scripts that make one, after lib.sh.
# shellcheck shell=sh
# shellcheck disable=SC2154 # Of lib.sh.

# Sets $mode, as root or with user namespaces, and sees to it that mmdebstrap is
# there. What it runs writes to LOG.
need_mmdebstrap() { # LOG
	if [ "$(id -u)" = 0 ]; then
		mode=root
		_tools="mmdebstrap mount"
		unshare --mount true 2>/dev/null ||
			die "this root may not mount (a container?): run it with --privileged or CAP_SYS_ADMIN, or as an ordinary user outside"
	else
		mode=unshare
		_tools="mmdebstrap mount newuidmap"
		unshare --user --map-root-user --mount true 2>/dev/null ||
			die "user namespaces are off: run as root, or as root: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
		grep -q "^$(id -un):" /etc/subuid 2>/dev/null ||
			die "user $(id -un) has no range in /etc/subuid: as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)"
	fi
	_missing=
	for _t in $_tools; do have "$_t" || _missing="$_missing $_t"; done
	[ -n "$_missing" ] || return 0
	_debs=$(echo "$_missing" | sed 's/newuidmap/uidmap/')
	if [ "$mode" != root ] || ! have apt-get; then
		die "missing:$_missing: install with: sudo apt-get install$_debs"
	fi
	say "installing$_debs with apt-get, which this machine lacks"
	# shellcheck disable=SC2086 # A list of words.
	{ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install $_debs; } >"$1" 2>&1 ||
		die_log "apt-get install$_debs failed" "$1"
}

# Makes OUT, a directory or a tar archive, from the mirror that find_mirror has
# found, with more arguments for mmdebstrap.
run_mmdebstrap() { # OUT LOG ARGUMENT...
	_out=$1
	_log=$2
	shift 2
	# Dies with this script, mounts and all, so that the lock is free again.
	_wrap="setpriv --pdeathsig KILL"
	[ "$mode" != root ] || _wrap="$_wrap unshare --mount --pid --fork --kill-child --mount-proc"
	# shellcheck disable=SC2086 # A list of words.
	TMPDIR=/var/tmp $_wrap mmdebstrap --mode="$mode" --variant=apt --include=ca-certificates \
		--aptopt="$aptconf" --aptopt='APT::Install-Recommends "false"' \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
		"$@" "$suite" "$_out" \
		"deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $mirror $suite-backports main" \
		>"$_log" 2>&1
}
