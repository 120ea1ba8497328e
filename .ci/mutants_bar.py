"""Holds the outcomes of `cargo mutants` against the bar: of the changes that compile, 95 % are noticed, and of each that is
not `tests/mutants.md` says why. Takes the folders of one run or of several parts of one."""

import json
import pathlib
import re
import sys

BAR = 0.95
KNOWN = pathlib.Path("tests/mutants.md")


def name_of(missed: str) -> str:
    """A change without its line and column, which move."""
    return re.sub(r":\d+:\d+:", ":", missed)


totals = dict.fromkeys(("total_mutants", "caught", "timeout", "missed", "unviable"), 0)
missed = []
for folder in map(pathlib.Path, sys.argv[1:]):
    outcomes = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))
    for key in totals:
        totals[key] += outcomes[key]
    missed += (folder / "missed.txt").read_text(encoding="utf-8").splitlines()
noticed = totals["caught"] + totals["timeout"]
tried = noticed + totals["missed"]
share = noticed / tried if tried else 0.0
print(
    f"{totals['total_mutants']} changes: {totals['caught']} caught, {totals['timeout']} without end, {totals['missed']} missed, "
    f"{totals['unviable']} do not compile; {share:.1%} noticed, at least {BAR:.0%} have to be"
)
known = set(re.findall(r"^- `(src/.*?)`: ", KNOWN.read_text(encoding="utf-8"), re.MULTILINE))
unexplained = sorted({name_of(line) for line in missed} - known)
for name in unexplained:
    print(f"{KNOWN} does not say why this may survive: {name}")
sys.exit(share < BAR or bool(unexplained))
