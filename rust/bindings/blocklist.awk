# SPDX-License-Identifier: GPL-2.0
#
# From the kernel crate's generated bindings, prints bindgen options that block each struct and union defined there in full.
# Those that are only names there (`_unused: [u8; 0]`) are not blocked: our own headers define them. Nor are aliases: they
# mean the same type in both crates, and bindgen derives nothing for a struct with a member of a blocked type. One option holds
# a thousand names, because the kernel limits the length of one argument.
#
# Without rustfmt bindgen writes everything on one line, with spaces between all tokens.

function emit(name)
{
	printf "%s%s", count % 1000 ? "|" : (count ? "\n" : "") "--blocklist-type ", name
	count++
}

# Takes the text up to the next definition or the end of the line.
function take(text)
{
	if (text ~ /^pub (struct|union) [A-Za-z_0-9]/) {
		name = text
		sub(/^pub (struct|union) /, "", name)
		sub(/[^A-Za-z_0-9].*/, "", name)
		sub(/^[^{;]*[{;]?/, "", text)
	}
	# The first member may be on the next line.
	if (name == "" || text !~ /[^ \t]/)
		return
	if (text !~ /^[ \t]*_unused ?: ?\[ ?u8 ?; ?0 ?\]/)
		emit(name)
	name = ""
}

{
	gsub(/pub (struct|union) /, "\n&")
	parts = split($0, part, "\n")
	for (i = 1; i <= parts; i++)
		take(part[i])
}
END { print "" }
