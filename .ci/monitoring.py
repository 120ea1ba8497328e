"""What the checks of dashboards/ share: a demo, a Prometheus that scrapes it, and an end of both whatever happens."""

import contextlib
import json
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(
    os.environ.get("SANDRUNNER_BINARY")
    or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "sandrunner"
)


def http(url, method="GET", body=None, headers=None, timeout=10):
    """The status and the text of an answer; refusals are answers as well."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def wait_for(what, condition, seconds):
    """Looks until `condition` gives something, which is returned."""
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Process:
    """A program in a session of its own; what it prints goes to a file."""

    def __init__(self, name, command, folder, env=None):
        self.name, self.command, self.env = name, [str(word) for word in command], env
        self.output = pathlib.Path(folder) / f"{name}.out"
        self.start()

    def start(self):
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(self.env or {})},
                start_new_session=True,
            )

    def printed(self):
        return self.output.read_text(errors="replace")

    def find(self, pattern, seconds=20):
        """Waits for the first group of a pattern in what it printed."""

        def found():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended:\n{self.printed()[-2000:]}")
            return re.search(pattern, self.printed())

        return wait_for(f"{self.name} printed {pattern}", found, seconds).group(1)

    def stop(self, how=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Demo(Process):
    """`sandrunner demo`, with its metrics and its control interface."""

    def __init__(self, name, folder, *arguments):
        super().__init__(name, [BINARY, "demo", *arguments], folder)
        self.metrics = self.find(r"metrics: http://(\S+)/metrics")
        self.control = self.find(r"control: http://(\S+)/_sim/state")

    def ask(self, method, path, body=None):
        status, text = http(f"http://{self.control}/_sim/{path}", method, body)
        if status >= 300:
            raise RuntimeError(f"{self.name}: {method} {path}: {status} {text}")
        return text


class Prometheus(Process):
    """Scrapes and evaluates every second."""

    def __init__(self, folder, targets, rules):
        """`targets` is a file that may change, or addresses by the name of their instance."""
        folder = pathlib.Path(folder)
        if isinstance(targets, dict):
            found = [{"targets": [address], "labels": {"instance": name}} for name, address in targets.items()]
            scrapes = {"static_configs": found}
        else:
            scrapes = {"file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "sandrunner", **scrapes}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self.address = f"127.0.0.1:{free_port()}"
        super().__init__(
            "prometheus",
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}",
                "--log.level=warn",
            ],
            folder,
        )
        wait_for("Prometheus is ready", lambda: http(f"http://{self.address}/-/ready")[0] == 200, 20)

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters, doseq=True)
        status, text = http(f"http://{self.address}/api/v1/{path}?{query}")
        if status != 200:
            raise RuntimeError(f"{parameters}: {text}")
        return json.loads(text)["data"]

    def has_data(self, expression, seconds):
        """Whether a query had any value that is a number within the last so many seconds."""
        now = time.time()
        data = self.ask("query_range", query=expression, start=now - seconds, end=now, step=1)
        values = (float(value) for series in data["result"] for _, value in series["values"])
        return any(not math.isnan(value) for value in values)

    def rules(self):
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def alerts(self):
        """What fires: names of alerts with the instance."""
        alerts = self.ask("alerts")["alerts"]
        return {(it["labels"]["alertname"], it["labels"].get("instance", "")) for it in alerts if it["state"] == "firing"}


@contextlib.contextmanager
def started():
    """A folder and a list: what is put into the list is stopped at the end, and the folder is gone."""

    def end(*_):
        raise SystemExit("ended from outside")

    signal.signal(signal.SIGTERM, end)
    processes = []
    with tempfile.TemporaryDirectory(prefix="sandrunner-prometheus-") as folder:
        try:
            yield folder, processes
        finally:
            for process in reversed(processes):
                process.stop()
