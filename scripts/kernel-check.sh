# SPDX-License-Identifier: GPL-2.0
# Whether modules will load into the running kernel, asked before anything is
# changed: sourced by install and load. Needs no more than busybox has.
# shellcheck shell=sh
# shellcheck disable=SC2154 # Of lib.sh.

# What a user of the suite loads; the samples are for reading.
# shellcheck disable=SC2034 # For the scripts.
modules="virtio_net_rust virtio_balloon_rust guest_integrity"

# Prints the configuration of kernel $1, if it is to be found.
kernel_config() {
	for _f in "/usr/lib/modules/$1/config" "/lib/modules/$1/config" "/boot/config-$1" "/usr/src/linux-headers-$1/.config"; do
		[ ! -r "$_f" ] || { cat "$_f"; return; }
	done
	[ ! -r /proc/config.gz ] || [ "$1" != "$(uname -r)" ] || zcat /proc/config.gz
}

# Prints what modinfo -F $1 $2 would.
module_info() { tr '\000' '\n' <"$2" | sed -n "s/^$1=//p" | sed 1q; }

is_signed() { tail -c 28 "$1" | grep -q 'Module signature appended'; }

# The kernels that there are modules for.
built_releases() {
	for _d in "$top"/build/*/; do
		[ ! -e "$_d/kernel-id" ] || printf ' %s' "$(basename "$_d")"
	done
}

# What there is to be done about missing modules for kernel $1.
explain_missing() {
	_config=$(kernel_config "$1")
	if [ -n "$_config" ] && ! echo "$_config" | grep -q '^CONFIG_RUST=y'; then
		die "the running kernel $1 has no Rust support and cannot run these modules: install and boot Debian's $series kernel (apt-get install -t $suite-backports linux-image-amd64 or linux-image-cloud-amd64)"
	fi
	_have=$(built_releases)
	die "there are no modules for the running kernel $1 here (there are for:${_have:- none}): install linux-headers-$1 $needs, then run make modules"
}

# Dies unless the modules $2... in directory $1 are for the kernel that runs:
# MODVERSIONS is off in Debian's kernels, so the kernel itself checks little.
check_kernel() {
	_dir=$1
	shift
	_release=$(uname -r)
	for _m; do
		_ko=$_dir/$_m.ko
		[ -r "$_ko" ] || die "$_ko is missing: run make modules"
		_magic=$(module_info vermagic "$_ko")
		[ "${_magic%% *}" = "$_release" ] ||
			die "$_ko is for kernel ${_magic%% *}, the one that runs is $_release: run make modules on this machine, or boot that kernel"
		# Any module of the kernel shows what the rest has to be.
		for _stock in "/lib/modules/$_release/kernel/drivers/block/loop.ko" "/lib/modules/$_release/kernel/drivers/net/virtio_net.ko"; do
			[ -r "$_stock" ] || continue
			[ "$_magic" = "$(module_info vermagic "$_stock")" ] ||
				die "$_ko has vermagic '$_magic' and the kernel's modules have '$(module_info vermagic "$_stock")': run make modules on this machine"
		done
	done

	[ -r "$_dir/kernel-id" ] || die "$_dir/kernel-id is missing, which says what kernel the modules are for: run make modules"
	_btf=$(sed -n 's/^btf //p' "$_dir/kernel-id")
	if [ -n "$_btf" ] && [ -r /sys/kernel/btf/vmlinux ] &&
		[ "$(sha256sum </sys/kernel/btf/vmlinux | cut -d' ' -f1)" != "$_btf" ]; then
		die "the running kernel is called $_release, but its types are not those of the kernel the modules were built for: build them against its own headers (make modules KDIR=...)"
	fi
	# Names are readable for all, addresses are not.
	if [ -r /proc/kallsyms ]; then
		_lost=$(awk 'FILENAME == "/proc/kallsyms" { if (NF == 3) have[$3] = 1; next }
			$1 == "needs" && !($2 in have) { print $2; exit }' /proc/kallsyms "$_dir/kernel-id")
		[ -z "$_lost" ] || die "the running kernel $_release has no $_lost, which the modules need: it is not the kernel they were built for; build them against its own headers (make modules KDIR=...)"
	fi

	# Signatures, where the kernel insists on them.
	_why=
	case $(cat /sys/kernel/security/lockdown 2>/dev/null) in
	*'[integrity]'* | *'[confidentiality]'*) _why="is locked down (Secure Boot)" ;;
	esac
	[ "$(cat /sys/module/module/parameters/sig_enforce 2>/dev/null)" != Y ] || _why=${_why:-"has module.sig_enforce set"}
	[ -n "$_why" ] || return 0
	for _m; do
		is_signed "$_dir/$_m.ko" ||
			die "the running kernel $_why and loads signed modules only, $_m.ko is not signed: sign it with a key enrolled by mokutil (scripts/sign-file of linux-kbuild), or turn that off"
	done
}

need_root() { [ "$(id -u)" = 0 ] || die "only root may $1: run it with sudo"; }
