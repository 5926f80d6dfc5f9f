# SPDX-License-Identifier: GPL-2.0
#
# What a person at the guest's terminal gets; leaving it ends the guest.
exec /bin/sh -i
