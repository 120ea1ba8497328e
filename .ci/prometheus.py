"""A real Prometheus scrapes a running demo; no query of the dashboard and no metric of an alert may come back empty."""

import json
import re
import sys
import time

from monitoring import ROOT, Demo, Prometheus, started, wait_for

SPEED = 60
WORK_SECONDS = 40
# So that there are failures to show; the work goes on.
FAULTS = ["mint_409", "runner_crashes", "github_errors", "modal_unavailable"]
# Limits and dates that are far away, so that they are shown.
KNOBS = {"modal_max_containers": 900, "modal_max_gpus": 90, "personal_token_secs": 9e6}
# What the demo has no data of, by a part of the query.
EMPTY = {
    # It takes no webhooks: nobody sends any.
    "sandrunner_webhook_deliveries_total",
    # It has no spend_per_day; the unit tests of the alerts do.
    'sandrunner_spend_limit_dollars{instance=~".*",class=""} < +Inf',
    'sandrunner_spend_limit_dollars{instance=~".*",class!=""}',
    'sandrunner_spend_limit_dollars{class!=""}',
}


def dashboard():
    """Queries by the titles of their panels, and those of the variables, with the variables as Grafana fills them in."""
    board = json.loads((ROOT / "dashboards/sandrunner.json").read_text())
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            values = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            yield f"variable {variable['name']}", f"count by ({values[2]}) ({filled(values[1])})"
    titles = set()
    for panel in (panel for panel in board["panels"] if panel["type"] != "row"):
        if panel["title"] in titles:
            sys.exit(f"two panels have the title {panel['title']}")
        titles.add(panel["title"])
        for target in panel["targets"]:
            yield f"panel {panel['title']}", filled(target["expr"])


def filled(expression):
    expression = expression.replace("$__rate_interval", "10s")
    return re.sub(r"\$(instance|class|repo|credential)\b", ".*", expression)


def metrics_of_alerts(rules):
    """Every selector in the alerts."""
    names = r"\b((?:sandrunner|process)_\w+|up)\b(\{[^}]*\})?"
    for rule in rules:
        for found in re.finditer(names, re.sub(r"\b(on|without|by) \([^)]*\)", "", rule["query"])):
            yield f"alert {rule['name']}", found[0]


def play(demo, prometheus):
    """Lets faults happen while Prometheus looks, waits until the work is done, then lets a new runner come out."""
    demo.ask("POST", "faults", {"knobs": KNOBS})
    wait_for("Prometheus has looked", lambda: prometheus.has_data("up == 1", 10), 15)
    for name in FAULTS:
        demo.ask("POST", "faults", {"name": name})
    job = {"repo": "acme/service-01", "labels": ["self-hosted", "modal"], "run": 900_000, "duration_secs": 60}
    demo.ask("POST", "jobs", {"jobs": [{**job, "id": 900_000 + n, "arrival_secs": 60 * n} for n in range(10)]})
    state = lambda: json.loads(demo.ask("GET", "state"))
    try:
        wait_for("the work is done", lambda: state()["expected_jobs_open"] == 0, WORK_SECONDS)
    except TimeoutError:
        print(f"the work is not done within {WORK_SECONDS} s; what it has shown so far is looked at")
    demo.ask("DELETE", "faults")
    demo.ask("POST", "faults", {"knobs": KNOBS})
    old = json.loads(demo.ask("GET", "releases"))["offered"]
    demo.ask("POST", "releases", {"version": "2.999.0"})
    demo.ask("PATCH", f"releases/{old}", {"refused_in_secs": 30 * 86_400})
    # GitHub is asked for releases once an hour.
    demo.ask("POST", "clock", {"advance_seconds": 3_700})
    # Prometheus itself is asked: how soon it looks again is not ours to know.
    left = "sandrunner_runner_version_left_seconds < +Inf"
    wait_for("Prometheus has seen the end of the old runner", lambda: prometheus.has_data(left, 10), 20)


def main():
    began = time.monotonic()
    with started() as (folder, processes):
        demo = Demo("demo", folder, "--speed", SPEED, "--jobs", 60, "--repos", 6, "--seed", 1)
        processes.append(demo)
        prometheus = Prometheus(folder, {"demo": demo.metrics}, ROOT / "dashboards/alerts.yml")
        processes.append(prometheus)
        play(demo, prometheus)
        rules = prometheus.rules()
        broken = [f"alert {rule['name']}: {rule['lastError']}" for rule in rules if rule["health"] != "ok"]
        seconds = int(time.monotonic() - began)
        queries = sorted({*dashboard(), *metrics_of_alerts(rules)})
        empty = [f"{where}: {query}" for where, query in queries if not prometheus.has_data(query, seconds)]
        expected = [line for line in empty if any(part in line for part in EMPTY)]
        missing = broken + [line for line in empty if line not in expected]
        unused = [part for part in sorted(EMPTY) if not any(part in line for line in expected)]
    print(f"{len(queries)} queries, {len(rules)} alerts, {len(expected)} queries empty for a reason, {seconds} s")
    for line in missing:
        print(f"EMPTY or broken: {line}")
    for part in unused:
        print(f"not empty any more, take it out of the list: {part}")
    return 1 if missing or unused or len(rules) == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
