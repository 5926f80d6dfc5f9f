#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Called by udhcpc: sets what the DHCP server said.

# shellcheck disable=SC2154 # udhcpc sets the variables.
case $1 in
deconfig)
	ip address flush dev "$interface"
	ip link set "$interface" up
	;;
bound | renew)
	ip address replace "$ip/$mask" dev "$interface"
	ip route replace default via "$router" dev "$interface"
	for server in $dns; do
		echo "nameserver $server"
	done >/etc/resolv.conf
	;;
esac
