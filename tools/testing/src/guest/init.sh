#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# First process of a test guest: mounts what programs expect, then obeys the
# host until the host goes away.

export PATH=/bin HOME=/root
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
mount -t securityfs security /sys/kernel/security
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
for d in /run /tmp; do
	mount -t tmpfs -o size=80% tmpfs $d
done
ip link set lo up
hostname tenon

# The machine without PCI finds its devices through this one.
grep -q LNRO0005 /sys/bus/acpi/devices/*/hid 2>/dev/null && modprobe -q virtio_mmio

if grep -q tenon.shell /proc/cmdline; then
	# The console is no terminal to be in control of, the port behind it is.
	setsid -c sh /etc/shell </dev/ttyS0 >/dev/ttyS0 2>&1
	poweroff -f
fi

# The agent's port is a device like others: it may come a moment later.
port=
for _ in $(seq 200); do
	for p in /sys/class/virtio-ports/*; do
		[ "$(cat "$p/name" 2>/dev/null)" = org.qemu.guest_agent.0 ] && port=/dev/${p##*/}
	done
	[ -z "$port" ] || break
	sleep 0.05
done
if [ -z "$port" ]; then
	echo 'tenon: BUG: no port for the agent' >/dev/kmsg
else
	qemu-ga --method virtio-serial --path "$port" --statedir /run \
		--pidfile /run/agent.pid </dev/null >/dev/null 2>&1
fi
poweroff -f
