"""Holds the report of a demo with 1,000 jobs against its bars, and prints the figures."""

import json
import sys

INTERVAL = 10.0

with open(sys.argv[1], encoding="utf-8") as file:
    report = json.load(file)

surplus = report["surplus_runners"]
unexplained = surplus - sum(report["surplus_explained"].values())
pickup = report["pickup_seconds"]
bars = {
    "jobs_completed == jobs_expected": report["jobs_completed"] == report["jobs_expected"] > 0,
    "violations empty": not report["violations"],
    "nothing left": report["sandboxes_live_at_end"] == report["runners_left_at_end"] == 0,
    "nothing claimed terminated": report["claimed_sandboxes_terminated"] == 0,
    "nothing foreign touched": report["foreign_touched"] == 0,
    "surplus at most 5 % of the jobs, all explained": surplus * 20 <= report["jobs_expected"] and unexplained <= 0,
    "no rate-limit answer": report["github_rate_limited"] == 0,
    "pick-up p50 within the interval": pickup["p50"] <= INTERVAL,
    "pick-up p95 within two intervals and 10 s": pickup["p95"] <= 2 * INTERVAL + 10,
}
print(json.dumps({key: value for key, value in report.items() if key != "violations"}, indent=1))
missed = [bar for bar, held in bars.items() if not held]
for bar in missed:
    print(f"missed: {bar}", file=sys.stderr)
sys.exit(1 if missed else 0)
