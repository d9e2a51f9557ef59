#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Regenerate everything that is made from Documentation/netlink/specs: the C
# uAPI headers, the kernel's policy tables and the userland's constants; and
# what is made from the kernel's reasons for refusals.
# Needs python3-yaml and, for the headers, a kernel source tree (KSRC).
set -euo pipefail
cd "$(dirname "$0")/.."
: "${KSRC:?set KSRC to a kernel source tree, for its tools/net/ynl}"

for spec in Documentation/netlink/specs/nlb-*.yaml; do
	family=$(basename "$spec" .yaml)
	part=${family#nlb-}
	header=include/uapi/linux/nlb_$part.h
	# The generator looks for the schema above the spec, and for a file
	# MAINTAINERS to know where the tree begins.
	copy=$(mktemp -d)
	mkdir -p "$copy/Documentation/netlink/specs"
	cp "$KSRC/Documentation/netlink/genetlink.yaml" "$copy/Documentation/netlink/"
	cp "$spec" "$copy/$spec"
	touch "$copy/MAINTAINERS"
	python3 "$KSRC/tools/net/ynl/pyynl/ynl_gen_c.py" \
		--mode uapi --header --spec "$copy/$spec" |
		sed 's,^/\* To regenerate run: .*,/* To regenerate run: scripts/gen-netlink.sh */,' >"$header"
	rm -r "$copy"
	python3 scripts/gen-netlink.py kernel "$spec" >"nlb_$part/uapi.rs"
	python3 scripts/gen-netlink.py user "$spec" >"tools/nlb-netlink/src/uapi/$part.rs"
done

# What the kernel says when a migration did not go through.
python3 scripts/gen-reasons.py c >tools/libnlb/include/nlb-reasons.h
python3 scripts/gen-reasons.py rust >tools/nlb-netlink/src/uapi/reason.rs
python3 scripts/gen-reasons.py rst >Documentation/migration-reasons.rst
