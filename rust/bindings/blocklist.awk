# SPDX-License-Identifier: GPL-2.0
#
# From the kernel crate's generated bindings, prints bindgen options that block each struct and union defined there in full.
# Those that are only names there (`_unused: [u8; 0]`) are not blocked: our own headers define them. Nor are aliases: they
# mean the same type in both crates, and bindgen derives nothing for a struct with a member of a blocked type. One option holds
# a thousand names, because the kernel limits the length of one argument.

function emit(name)
{
	printf "%s%s", n % 1000 ? "|" : (n ? "\n" : "") "--blocklist-type ", name
	n++
}

/^pub (struct|union) [A-Za-z_0-9]+/ { name = $3; sub(/[^A-Za-z_0-9].*/, "", name); next }
name != "" { if ($0 !~ /_unused: \[u8; 0\]/) emit(name); name = "" }
END { print "" }
