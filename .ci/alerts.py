"""Every alert of dashboards/alerts.yml fires under a fault that it is meant for, and resolves once that is over.

Demos run at sixty times real time, each with a fault of its own, beside a daemon in real time against `simulate`; a real
Prometheus scrapes all of them, with rules whose `for:` and ranges are divided by sixty.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import sys
import threading
import time
import traceback

from monitoring import BINARY, ROOT, Demo, Process, Prometheus, free_port, http, started, wait_for

SPEED = 60
AT_A_TIME = int(os.environ.get("ALERTS_AT_A_TIME", "6"))
# How long each step may take, in real seconds.
PATIENCE = float(os.environ.get("ALERTS_PATIENCE", "240"))
ALWAYS = {"rate": 1.0}


def quickened(rules):
    """The rules with every duration divided."""

    def divided(found):
        seconds = int(found[2]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[found[3]]
        return f"{found[1]}{max(2, seconds // SPEED)}s"

    rules = re.sub(r"(^ +for: )(\d+)([smhd])$", divided, rules, flags=re.MULTILINE)
    # Of what is scraped every second, less than four seconds is no range.
    return re.sub(r"(\[)(\d+)([smhd])(?=\])", lambda found: "[" + f"{max(4, int(divided(found)[1:-1]))}s", rules)


def scenario(folder, name, every, seconds=10 * 3_600):
    """One repository with a job of 20 s every so many seconds, and one that stays empty."""
    arrivals = range(5, seconds, every) if every else []
    jobs = [
        {"id": 1_000 + n, "run": 100 + n, "repo": "acme/web", "labels": ["self-hosted", "modal"], "arrival_secs": at, "duration_secs": 20}
        for n, at in enumerate(arrivals)
    ]
    path = pathlib.Path(folder) / f"{name}.json"
    path.write_text(json.dumps({"repos": [{"name": "acme/web"}, {"name": "acme/odd"}], "jobs": jobs}))
    return path


class Stage:
    """What a case acts on: its own demo, and what fires there."""

    def __init__(self, name, folder, targets, prometheus, processes):
        self.name, self.folder, self.prometheus, self.processes = name, folder, prometheus, processes
        self.targets, self.tested = targets, set()

    def begin(self, every):
        self.demo = Demo(self.name, self.folder, "--speed", SPEED, "--profile", "calm", "--scenario", scenario(self.folder, self.name, every))
        self.processes.append(self.demo)
        self.targets.add(self.name, self.demo.metrics)
        if every:
            wait_for(f"{self.name}: a job has started", lambda: self.shows(r'job_pickup_seconds_count\{class="default",leg="total"\} [1-9]'), PATIENCE)

    def shows(self, pattern):
        return re.search(pattern, http(f"http://{self.demo.metrics}/metrics")[1])

    def fault(self, **fault):
        self.demo.ask("POST", "faults", fault)

    def heal(self):
        self.demo.ask("DELETE", "faults")

    def an_hour_later(self):
        """What is asked once an hour is asked."""
        self.demo.ask("POST", "clock", {"advance_seconds": 3_700})

    def firing(self):
        return {alert for alert, instance in self.prometheus.alerts() if instance == self.name}

    def quiet(self, *alerts):
        wait_for(f"{self.name}: {alerts} do not fire", lambda: not self.firing() & set(alerts), PATIENCE)

    def fires(self, *alerts):
        wait_for(f"{self.name}: {alerts} fire", lambda: set(alerts) <= self.firing(), PATIENCE)

    def resolves(self, *alerts):
        wait_for(f"{self.name}: {alerts} resolve", lambda: not self.firing() & set(alerts), PATIENCE)
        self.tested |= set(alerts)

    def under(self, alerts, fault, end=None):
        """They do not fire, then they do, then they do not."""
        self.quiet(*alerts)
        fault()
        self.fires(*alerts)
        (end or self.heal)()
        self.resolves(*alerts)


def modal_down(it):
    it.begin(every=60)
    it.under(["SandrunnerSnapshotStale", "SandrunnerModalErrors"], lambda: it.fault(operation="modal", mode="error", **ALWAYS))


def github_down(it):
    it.begin(every=60)
    it.under(
        ["SandrunnerSnapshotStale", "SandrunnerSnapshotIncomplete", "SandrunnerGithubErrors"],
        lambda: it.fault(operation="github", mode="error", **ALWAYS),
    )


def no_registrations(it):
    it.begin(every=60)
    it.under(["SandrunnerJobsWaiting"], lambda: it.fault(operation="mint", mode="refused", status=403, **ALWAYS))


def slow_boots(it):
    it.begin(every=20)
    it.under(["SandrunnerPickupSlow"], lambda: it.fault(operation="boot", mode="slow_boot", seconds=150, **ALWAYS))


def little_room_at_modal(it):
    it.begin(every=20)
    it.under(["SandrunnerAtLimit", "SandrunnerModalQuotaNearlyUsed"], lambda: it.fault(knobs={"modal_max_containers": 1}))


def a_public_repository(it):
    it.begin(every=60)
    it.under(
        ["SandrunnerJobsRefused"],
        lambda: it.demo.ask("PATCH", "repos/acme/web", {"visibility": "public"}),
        lambda: it.demo.ask("PATCH", "repos/acme/web", {"visibility": "private"}),
    )


def a_ghost(it):
    it.begin(every=None)
    job = {"id": 7, "run": 7, "repo": "acme/odd", "labels": ["self-hosted", "modal"], "duration_secs": 20}

    def fault():
        it.fault(name="ghost_job", seconds=9_000)
        it.demo.ask("POST", "jobs", {"jobs": [job]})

    # GitHub gives it out after all.
    it.under(["SandrunnerGhostJobs"], fault, lambda: None)


def crashes(it):
    it.begin(every=40)
    it.under(["SandrunnerBreakerOpen", "SandrunnerSandboxesFail"], lambda: it.fault(operation="boot", mode="crash", **ALWAYS))


def leaks(it):
    it.begin(every=120)

    def fault():
        it.fault(operation="boot", mode="never_online", **ALWAYS)
        it.fault(operation="terminate", mode="error", **ALWAYS)

    it.under(["SandrunnerSandboxesLeaked"], fault)


def little_quota(it):
    it.begin(every=20)

    def fault():
        # One in twenty is left; then nothing more is read, until the hour ends.
        limit, left = (int(it.shows(rf"github_rate_limit{what}\{{[^}}]*\}} (\d+)")[1]) for what in ["", "_remaining"])
        it.fault(knobs={"github_requests_per_hour": (limit - left) * 20 // 19 + 1})

    it.under(["SandrunnerGithubBudgetLow"], fault)


def token_ends(it):
    it.begin(every=None)
    it.under(
        ["SandrunnerTokenEnds"],
        lambda: it.fault(knobs={"personal_token_secs": 500_000}),
        lambda: it.fault(knobs={"personal_token_secs": 9_000_000}),
    )


def runner_version_ends(it):
    it.begin(every=60)
    old = json.loads(it.demo.ask("GET", "releases"))["offered"]

    def fault():
        it.fault(operation="image_build", mode="error", **ALWAYS)
        it.demo.ask("POST", "releases", {"version": "2.999.0"})
        it.demo.ask("PATCH", f"releases/{old}", {"refused_in_secs": 5 * 86_400})
        it.an_hour_later()

    def end():
        it.demo.ask("PATCH", f"releases/{old}", {"refused_in_secs": 1})
        it.an_hour_later()
        it.fires("SandrunnerRunnerVersionEnded")
        it.heal()
        it.resolves("SandrunnerRunnerVersionEnded")

    it.quiet("SandrunnerRunnerVersionEnded")
    it.under(["SandrunnerRunnerVersionEnds", "SandrunnerImageOverdue"], fault, end)


def bad_new_image(it):
    it.begin(every=40)

    def fault():
        it.fault(name="image_never_registers")
        it.demo.ask("POST", "releases", {"version": "2.999.0"})
        it.an_hour_later()

    it.under(["SandrunnerImageRolledBack"], fault)


def modal_spent(it):
    it.begin(every=60)
    it.under(["SandrunnerModalSpendLimitReached"], lambda: it.fault(knobs={"modal_spend_limit_reached": True}))


def restarts(it):
    it.begin(every=None)

    def fault():
        for _ in range(6):
            it.fault(name="controller_killed", times=1, **ALWAYS)
            time.sleep(3)

    it.under(["SandrunnerRestarts"], fault)


def no_disk(it):
    it.begin(every=20)
    it.under(
        ["SandrunnerStateNotSaved"],
        lambda: it.fault(name="state_read_only", times=1, **ALWAYS),
        lambda: it.fault(name="state_lost", times=1, **ALWAYS),
    )


def in_real_time(it):
    """A daemon of its own, with a daily limit, a webhook, and an end."""
    folder = pathlib.Path(it.folder)
    listen = f"127.0.0.1:{free_port()}"
    knobs = {"image_build_secs": 1.0}
    jobs = [
        {"id": 1_000 + n, "run": 100 + n, "repo": "acme/web", "labels": ["self-hosted", "modal"], "arrival_secs": n * 5, "duration_secs": 60}
        for n in range(400)
    ]
    (folder / "real.json").write_text(json.dumps({"repos": [{"name": "acme/web"}], "profile": knobs, "jobs": jobs}))
    simulator = Process("simulate", [BINARY, "simulate", "--profile", "calm", "--scenario", folder / "real.json"], folder)
    it.processes.append(simulator)
    env = {name: simulator.find(rf"export {name}=(\S+)") for name in ["GITHUB_API_URL", "MODAL_SERVER_URL"]}
    env |= {"GITHUB_TOKEN": "simulated", "MODAL_TOKEN_ID": "ak-simulated", "MODAL_TOKEN_SECRET": "as-simulated", "WEBHOOK_SECRET": "a secret of the test"}

    def configure(limit):
        (folder / "config.toml").write_text(
            f'[[github]]\nallowed_repos = ["acme/web"]\n[http]\nlisten = "{listen}"\n[limits]\nspend_per_day = {limit}\n'
            "[reconcile]\ninterval = \"2s\"\n[[runner_classes]]\nname = \"dear\"\nlabels = []\nprice = 360.0\n"
        )

    def restarted(limit):
        daemon.stop()
        configure(limit)
        daemon.start()

    configure(5.0)
    daemon = Process("daemon", [BINARY, "run", "--config", folder / "config.toml", "--state-dir", folder / "state"], folder, env)
    it.processes.append(daemon)
    it.targets.add(it.name, listen)
    it.fires("SandrunnerSpendNearLimit", "SandrunnerSpendAboveLimit")
    restarted(1_000_000.0)
    it.resolves("SandrunnerSpendNearLimit", "SandrunnerSpendAboveLimit")

    def forge():
        head = {"x-github-event": "workflow_job", "x-hub-signature-256": "sha256=" + hashlib.sha256(b"no").hexdigest()}
        for n in range(20):
            status, _ = http(f"http://{listen}/webhooks/github", "POST", b"{}", {**head, "x-github-delivery": str(n)})
            assert status == 401, status
            time.sleep(0.2)

    it.under(["SandrunnerWebhookRefused"], forge, lambda: None)
    it.under(["SandrunnerSilent"], daemon.stop, daemon.start)


CASES = [
    runner_version_ends, a_ghost, github_down, in_real_time, bad_new_image, little_room_at_modal, leaks, slow_boots, no_disk,
    modal_spent, modal_down, no_registrations, crashes, a_public_repository, little_quota, token_ends, restarts,
]


class Targets:
    """The file that Prometheus finds its targets in."""

    def __init__(self, folder):
        self.path, self.all, self.lock = pathlib.Path(folder) / "targets.json", {}, threading.Lock()
        self.write()

    def add(self, name, address):
        with self.lock:
            self.all[name] = address
            self.write()

    def write(self):
        text = json.dumps([{"targets": [address], "labels": {"instance": name}} for name, address in self.all.items()])
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)


def played(case, folder, targets, prometheus):
    """What a case has tested, and what went wrong; its processes are ended."""
    began, processes = time.monotonic(), []
    stage = Stage(case.__name__, folder, targets, prometheus, processes)
    try:
        case(stage)
        wrong = None
    except Exception as error:
        wrong = f"{case.__name__}: {error}" if isinstance(error, TimeoutError) else traceback.format_exc()
        fires = ", ".join(sorted(stage.firing())) or "nothing"
        wrong += f" (there fire: {fires})"
    finally:
        for process in reversed(processes):
            process.stop()
    print(f"{case.__name__}: {'FAILED' if wrong else 'ok'}, {time.monotonic() - began:.0f} s", flush=True)
    return stage.tested, wrong


def main(names):
    rules = (ROOT / "dashboards/alerts.yml").read_text()
    wanted = set(re.findall(r"- alert: (\w+)", rules))
    cases = [case for case in CASES if not names or case.__name__ in names]
    with started() as (folder, processes):
        quick = pathlib.Path(folder) / "alerts.yml"
        quick.write_text(quickened(rules))
        targets = Targets(folder)
        prometheus = Prometheus(folder, targets.path, quick)
        processes.append(prometheus)
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            results = list(pool.map(lambda case: played(case, folder, targets, prometheus), cases))
    tested = set().union(*(tested for tested, _ in results))
    failures = [wrong for _, wrong in results if wrong]
    print(f"{len(tested)} of {len(wanted)} alerts fired and resolved")
    for failure in failures:
        print(f"FAILED: {failure}")
    if not names and wanted - tested:
        print(f"not seen to fire and resolve: {', '.join(sorted(wanted - tested))}")
    return 1 if failures or (not names and wanted - tested) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
