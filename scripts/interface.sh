# SPDX-License-Identifier: GPL-2.0
# What a network interface was told, kept while its device changes drivers: the
# interface goes away with one and is made anew by the other. For scripts/load.
# shellcheck shell=sh

# Refuses an interface $1 that cannot come back as it was.
check_interface() {
	[ -n "$1" ] || return 0
	have ip || die "without the program ip $1 would lose its addresses: install iproute2"
	for _u in "/sys/class/net/$1"/upper_*; do
		[ ! -e "$_u" ] || die "$1 is part of ${_u##*/upper_}, which would lose it: take it out of that first"
	done
}

# Hundredths of a second since the machine was started.
now() {
	read -r _t _ </proc/uptime
	echo "${_t%.*}${_t#*.}"
}

# Prints how many pairs of queues interface $1 uses, if ethtool can tell.
pairs_of() {
	! have ethtool || ethtool -l "$1" 2>/dev/null | sed -n 's/^Combined:[[:space:]]*\([0-9]*\)$/\1/p' | sed -n 2p
}

# Prints the arguments that make ip add each address of interface $1 again. What
# the kernel makes by itself is left to it.
addresses_of() {
	ip -o address show dev "$1" | awk '
		/ proto kernel_ll| temporary/ { next }
		{
			sub(/\\/, "")
			line = $4
			for (i = 5; i <= NF; i++) {
				if ($i ~ /^(noprefixroute|home)$/)
					line = line " " $i
				if ($i ~ /^(peer|brd|scope|metric|valid_lft|preferred_lft)$/) {
					line = line " " $i
					i++
					sub(/sec$/, "", $i)
					line = line " " $i
				}
			}
			print line ($3 == "inet6" ? " nodad" : "")
		}'
}

# The same with the routes through it, of IP version $2, without those that come
# with the addresses.
routes_of() {
	ip "-$2" route show table all dev "$1" | awk '
		/ table local / || / proto (kernel|ra)( |$)/ { next }
		{
			gsub(/ (linkdown|dead|offload|trap|rt_offload|rt_trap|pervasive)/, "")
			gsub(/ expires [^ ]*/, "")
			print
		}'
}

# Keeps in directory $2 what interface $1 was told.
save_interface() {
	mkdir -p "$2"
	echo "$1" >"$2/name"
	for _f in address mtu tx_queue_len flags ifalias; do
		cat "/sys/class/net/$1/$_f" >"$2/$_f"
	done
	pairs_of "$1" >"$2/pairs"
	addresses_of "$1" >"$2/addresses"
	for _v in 4 6; do routes_of "$1" $_v >"$2/routes$_v"; done
	ip neighbour show dev "$1" nud permanent | sed 's/ PERMANENT.*//' >"$2/neighbours"
	for _f in /proc/sys/net/ipv[46]/conf/"$1"/*; do
		read -r _w 2>/dev/null <"$_f" && echo "${_f#/proc/sys/net/} $_w"
	done | sed "s|/$1/| |" >"$2/settings"
	now >"$2/since"
}

# Runs "ip ARGUMENTS LINE dev INTERFACE" for each line of file $1: the failures
# once more, as one may need another.
restore_lines() {
	_file=$1 _to=$2
	shift 2
	: >"$_file.again"
	while read -r _l; do
		# shellcheck disable=SC2086 # The line is several arguments.
		ip "$@" $_l dev "$_to" 2>/dev/null || echo "$_l" >>"$_file.again"
	done <"$_file"
	while read -r _l; do
		# shellcheck disable=SC2086
		ip "$@" $_l dev "$_to" || say "warning: $_to has lost this: ip $* $_l dev $_to"
	done <"$_file.again"
}

# Tells the interface that the device with the interfaces below $1 has now what
# its predecessor was told. Prints how long that had been away.
restore_interface() {
	read -r _name <"$2/name"
	_tries=0 _i=
	while [ $_tries -lt 50 ]; do
		for _i in "$1"/net/*; do _i=${_i##*/}; done
		[ "$_i" != "*" ] || _i=
		[ "$_i" != "$_name" ] || break
		# Somebody else may be giving it a name as well.
		[ -z "$_i" ] || ip link set dev "$_i" name "$_name" 2>/dev/null || :
		sleep 0.1
		_tries=$((_tries + 1))
	done
	[ -n "$_i" ] || { say "warning: there is no interface in place of $_name"; return; }

	read -r _w <"$2/address"
	ip link set dev "$_i" address "$_w" 2>/dev/null || say "warning: $_i cannot have the address $_w"
	read -r _w <"$2/mtu"
	ip link set dev "$_i" mtu "$_w" 2>/dev/null || say "warning: $_i cannot have an MTU of $_w"
	read -r _w <"$2/tx_queue_len"
	ip link set dev "$_i" txqueuelen "$_w"
	read -r _w <"$2/ifalias" || _w=
	[ -z "$_w" ] || ip link set dev "$_i" alias "$_w"
	while read -r _d _f _w; do
		read -r _was 2>/dev/null <"/proc/sys/net/$_d/$_i/$_f" || continue
		[ "$_was" = "$_w" ] || echo "$_w" 2>/dev/null >"/proc/sys/net/$_d/$_i/$_f" || :
	done <"$2/settings"

	read -r _w <"$2/flags"
	[ $((_w & 1)) = 0 ] || ip link set dev "$_i" up || say "warning: $_i does not come up"
	[ $((_w & 0x200)) = 0 ] || ip link set dev "$_i" allmulticast on
	[ $((_w & 0x100)) = 0 ] || ip link set dev "$_i" promisc on
	restore_lines "$2/addresses" "$_i" address replace
	restore_lines "$2/neighbours" "$_i" neighbour replace
	for _v in 4 6; do restore_lines "$2/routes$_v" "$_i" "-$_v" route replace; done
	read -r _w <"$2/pairs" || _w=
	[ -z "$_w" ] || [ "$(pairs_of "$_i")" = "$_w" ] || ethtool -L "$_i" combined "$_w" 2>/dev/null ||
		say "warning: $_i cannot use $_w pairs of queues"

	read -r _since <"$2/since"
	_away=$(($(now) - _since))
	say "$(printf '%s has what it was told before, and was away for %d.%02d s' "$_i" $((_away / 100)) $((_away % 100)))"
}
