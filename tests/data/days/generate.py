#!/usr/bin/env python3
"""Writes a day of workflow runs in repositories of which few are busy, one file per seed.

Sessions come by a day's rhythm, each a cluster of runs some minutes apart; the rates of the repositories are lognormal.
The files are kept because the draws are Python's: tests/data/days/generate.py 11 17 23 42
"""

import math
import pathlib
import random
import sys

DAY = 86_400.0


def arrivals(seed, repos=500, total=3000, deviation=2.0, cluster=4.0, gap=600.0):
    draw = random.Random(seed)
    weights = [math.exp(draw.gauss(0, deviation)) for _ in range(repos)]
    whole = sum(weights)
    rates = [total * weight / whole / DAY for weight in weights]
    phases = [draw.choice([0, 0, 0, 8 * 3600, -6 * 3600]) for _ in range(repos)]

    def rhythm(repo, at):
        return max(0.05, 1 + 0.95 * math.cos(2 * math.pi * (at - 14 * 3600 - phases[repo]) / DAY))

    runs = []
    for repo in range(repos):
        most, at = rates[repo] / cluster * 1.95, 0.0
        while True:
            at += draw.expovariate(most)
            if at >= DAY:
                break
            if draw.random() < rhythm(repo, at) / 1.95:
                count = 1
                while draw.random() < 1 - 1 / cluster:
                    count += 1
                run_at = at
                for _ in range(count):
                    if run_at < DAY:
                        runs.append((run_at, repo))
                    run_at += draw.expovariate(1 / gap)
    return sorted(runs)


def work(draw):
    """How long a run lasts, how many jobs it has, and how many of them belong to a second stage."""
    seconds = max(20, round(360 * math.exp(draw.gauss(0, 0.8))))
    jobs = 1
    while jobs < 20 and draw.random() < 2 / 3:
        jobs += 1
    second = draw.randrange(1, jobs) if jobs > 1 and draw.random() < 0.3 else 0
    return seconds, jobs, second


def main():
    here = pathlib.Path(__file__).parent
    for seed in map(int, sys.argv[1:]):
        draw = random.Random(f"work {seed}")
        lines = ["# repository, arrival in tenths of a second, seconds, jobs, jobs of a second stage"]
        for at, repo in arrivals(seed):
            lines.append(" ".join(map(str, (repo, round(at * 10), *work(draw)))))
        (here / f"{seed}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
