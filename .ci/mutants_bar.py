"""Holds the outcomes of `cargo mutants` against the bar: of the changes that compile, 95 % are noticed."""

import json
import sys

BAR = 0.95

with open(sys.argv[1], encoding="utf-8") as file:
    outcomes = json.load(file)
caught = outcomes["caught"] + outcomes["timeout"]
missed = outcomes["missed"]
tried = caught + missed
share = caught / tried if tried else 0.0
print(
    f"{outcomes['total_mutants']} changes: {outcomes['caught']} caught, {outcomes['timeout']} without end, {missed} missed, "
    f"{outcomes['unviable']} do not compile; {share:.1%} noticed, at least {BAR:.0%} have to be"
)
sys.exit(share < BAR)
