#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What a person at the guest's terminal gets; leaving it ends the guest.

value() { sed -n "s/.*tenon.$1=\([0-9]*\).*/\1/p" /proc/cmdline; }

stty sane
rows=$(value rows) columns=$(value columns)
[ -z "$columns" ] || stty rows "$rows" columns "$columns"
cd /modules || exit
if [ -e virtio_net_rust.ko ] && insmod virtio_net_rust.ko; then
	for _ in 1 2 3 4 5; do
		[ ! -e /sys/class/net/eth0 ] || break
		sleep 0.2
	done
	ip link set eth0 up
	udhcpc -i eth0 -n -q -t 5 -T 2 -s /etc/dhcp >/dev/null 2>&1 ||
		echo 'No address from DHCP.'
fi

cat <<EOT

A guest with $(uname -sr). $(ip -4 -o address show dev eth0 2>/dev/null | awk '{ print "eth0 is " $4 ", the host is 10.0.2.2." }')
The modules are in /modules (build/$(uname -r)/ of the checkout), the kernel's own
are loaded with modprobe. exit leaves, and everything in the guest is lost.

EOT
PS1='tenon:\w# ' exec bash --norc -i
