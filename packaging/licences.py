#!/usr/bin/env python3
"""Prints the licences of every crate that is compiled into the binary, with their texts, for whoever gets the binary."""

import json
import pathlib
import re
import subprocess
import sys

HEAD = """Sandrunner is under the MIT licence. Compiled into it are the crates below, each under the licences that stand beside it.
Where a crate names several with OR, each may be chosen. Texts that several crates share stand once.
"""
NAMES = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def compiled_in():
    """Names with versions of what the binary is made of, without what only the build runs."""
    tree = cargo("tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    return {tuple(line.split()[:2]) for line in tree.splitlines() if line}


def main():
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1"))
    wanted = compiled_in()
    texts, missing = {}, []
    print(HEAD)
    for package in sorted(metadata["packages"], key=lambda package: (package["name"], package["version"])):
        name = f"{package['name']} {package['version']}"
        if package["name"] == "sandrunner" or (package["name"], f"v{package['version']}") not in wanted:
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.is_file() and NAMES.match(path.name))
        print(f"{name}: {package['license']}")
        if not files:
            missing.append(name)
        for path in files:
            texts.setdefault(path.read_text(encoding="utf-8", errors="replace").strip(), []).append(name)
    if missing:
        print(f"\nWithout a text of their own: {', '.join(missing)}")
    for text, names in texts.items():
        print(f"\n{'=' * 100}\n{', '.join(names)}\n\n{text}")
    if not texts:
        sys.exit("no licences were found")


main()
