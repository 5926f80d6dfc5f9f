#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Adds our crates to the list of the kernel's crates: called by rust-analyzer.

Usage: rust-project.py KERNEL_LIST OBJECTS ROOT

Which crates there are is read from the commands that kbuild saved in OBJECTS. ROOT is put before paths that are those
of the build tree.
"""

import json
import pathlib
import re
import sys


def saved_commands(objects):
    """The words of each command that compiled a crate."""
    for path in sorted(objects.rglob(".*.o.cmd")):
        found = re.match(r"savedcmd_\S+ := (.*)", path.read_text())
        command = found.group(1).split(";")[0].split() if found else []
        if "rustc" in command:
            yield command


def after(words, option):
    return [b for a, b in zip(words, words[1:]) if a == option]


def main():
    kernel_list, objects, root = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    project = json.loads(pathlib.Path(kernel_list).read_text())
    crates = project["crates"]
    index = {crate["display_name"]: i for i, crate in enumerate(crates)}
    kernel = crates[index["kernel"]]

    def name(words):
        root_module = next(w for w in words if w.endswith(".rs"))
        return (after(words, "--crate-name") or [pathlib.Path(root_module).stem])[0], root_module

    # What others import comes before them.
    commands = sorted(saved_commands(objects), key=lambda words: "--crate-name" not in words)
    for words in commands:
        crate, root_module = name(words)
        deps = [d for d in ["core", *after(words, "--extern")] if d in index]
        index[crate] = len(crates)
        crates.append({
            "display_name": crate,
            "root_module": root_module,
            "is_workspace_member": True,
            "deps": [{"crate": index[d], "name": d} for d in deps],
            "cfg": [*kernel["cfg"], "MODULE"],
            "edition": "2021",
            "env": {
                "RUST_MODFILE": "for rust-analyzer only",
                "OBJTREE": kernel["env"]["OBJTREE"],
                "GUEST_BINDINGS": str(objects / "rust/bindings"),
            },
            "source": {
                "include_dirs": [str(pathlib.Path(root_module).parent), str(objects / "rust")],
                "exclude_dirs": [],
            },
        })

    for crate in crates:
        if crate["root_module"].startswith("/usr/"):
            crate["root_module"] = root + crate["root_module"]
    project["sysroot"] = root + project["sysroot"]
    json.dump(project, sys.stdout, sort_keys=True, indent=4)
    print()


if __name__ == "__main__":
    main()
