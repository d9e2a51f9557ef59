#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Keep of our own bindgen output what the kernel crate's bindings lack.

usage: filter.py KERNEL_BINDINGS OWN_BINDINGS > RESULT

Every C type shall exist once in Rust, or values of the kernel crate and ours
could not be exchanged. So an item stays in the result only if

 - the kernel crate has none of that name, or
 - the kernel crate knows the type by a forward declaration alone (an opaque
   struct without fields) while our headers define it, or
 - it mentions, directly or through other items, a type of the second sort:
   `struct sk_buff` has a `struct sock *`, and should have ours.

The third rule stops at STOP: types which are the kernel crate's in any case,
because its API hands them out (or which lead to half of the kernel).
"""

import re
import sys

STOP = {
    "cgroup", "cgroup_namespace", "cgroup_subsys_state", "cred", "css_set", "dentry", "device",
    "device_driver", "file", "inode", "io_kiocb", "kobject", "mm_struct",
    "module", "nsproxy", "page", "pid", "pid_namespace", "super_block", "task_struct",
    "user_namespace", "user_struct", "vm_area_struct", "work_struct",
}  # fmt: skip

DEFINES = re.compile(
    r"^\s*pub (?:const |unsafe )?(?:struct|union|type|const|static|fn|mod|use self::\w+ as) "
    r"(?:mut )?(\w+)",
    re.M,
)
IMPLEMENTS = re.compile(
    r"^(?:unsafe )?impl.*?\bfor (?:\w+::)*(\w+)|^(?:unsafe )?impl(?:<.*?>)? (\w+)", re.M
)
# What bindgen gets wrong in the kernel crate's bindings: a member that is an
# anonymous `struct ns_tree;` is lost, and all that comes after it misplaced.
WRONG = re.compile(r"ns_common(__bindgen_ty_\d+)?$")
FORWARD = re.compile(r"_unused: \[u8; 0\],|_address: u8,")


def items(path):
    """Split formatted bindgen output into its top-level items."""
    with open(path, encoding="utf-8") as f:
        item = []
        for line in f:
            item.append(line)
            top = not line.startswith((" ", "\t", "#"))
            if top and line.rstrip().endswith(("}", ";")):
                yield "".join(item)
                item = []


def name_of(item):
    """Return the name that an item defines or implements something for."""
    body = re.sub(r"^#\[.*\]$", "", item, flags=re.M).lstrip()
    if body.startswith(("impl", "unsafe impl")):
        found = IMPLEMENTS.search(body)
        return (found.group(1) or found.group(2)) if found else None
    # Its layout tests go with a type.
    if body.startswith("const _"):
        found = re.search(r'"Size of (\w+)', body)
        return found.group(1) if found else None
    found = DEFINES.search(body)
    return found.group(1) if found else None


def main():
    kernel = {}
    for item in items(sys.argv[1]):
        name = name_of(item)
        kernel[name] = kernel.get(name, "") + item
    own = [(name_of(item), item) for item in items(sys.argv[2])]

    text = {}
    for name, item in own:
        text[name] = text.get(name, "") + item

    # Numbered by bindgen per run, hence never the same as the kernel's.
    anonymous = {n for n in text if n and n.startswith("_bindgen_ty_")}
    replaced = {
        n for n, t in text.items() if FORWARD.search(kernel.get(n, "")) and not FORWARD.search(t)
    } | {n for n in text if n and WRONG.match(n)} | anonymous
    keep = {n for n in text if n not in kernel} | replaced

    words = {n: set(re.findall(r"\w+", t)) - {n} for n, t in text.items()}
    while True:
        more = {
            n for n, w in words.items() if n not in replaced and n not in STOP and w & replaced
        }
        if not more:
            break
        replaced |= more
        keep |= more

    for name, item in own:
        if name in keep:
            sys.stdout.write(item)


if __name__ == "__main__":
    main()
