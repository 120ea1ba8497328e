"""What Sandrunner does with Modal, done by Modal's official client: it must be content with the simulated Modal.

One conversation without a GPU (the second generation of sandboxes) and one with (the first). Started by `run`.
"""

import sys
import time

import modal

APP = "sandrunner-conformance"


def main() -> None:
    print(f"modal {modal.__version__}, python {sys.version.split()[0]}")
    app = modal.App.lookup(APP, create_if_missing=True)
    equal("the App is found again", modal.App.lookup(APP).app_id, app.app_id)
    image = modal.Image.from_registry("ubuntu:24.04").run_commands("echo first").run_commands("echo second")
    for gpu in (None, "A100"):
        converse(app, image, gpu)


def converse(app: modal.App, image: modal.Image, gpu: str | None) -> None:
    kind = f"GPU {gpu}" if gpu else "no GPU"
    name = f"conformance-{'gpu' if gpu else 'plain'}-1"
    tags = {"origin": "conformance", "kind": kind.replace(" ", "-")}

    def create() -> modal.Sandbox:
        return modal.Sandbox.create(
            "sleep",
            "infinity",
            app=app,
            name=name,
            tags=tags,
            image=image,
            env={"GREETING": "hello"},
            timeout=3600,
            cpu=1.0,
            memory=1024,
            region="us-east",
            gpu=gpu,
        )

    def listed(wanted: dict[str, str]) -> list[str]:
        return [sandbox.object_id for sandbox in modal.Sandbox.list(app_id=app.app_id, tags=wanted)]

    sandbox = create()
    # The client tells the generations apart by the form of the id: 22 characters are the first, a ULID the second.
    equal(f"{kind}: the id has the form of its generation", len(sandbox.object_id), len("sb-") + (22 if gpu else 26))
    eventually(f"{kind}: it is listed by its tags", lambda: listed(tags) == [sandbox.object_id])
    equal(f"{kind}: a tag it lacks excludes it", listed(tags | {"more": "x"}), [])
    equal(f"{kind}: it has the tags it was created with", sandbox.get_tags(), tags)
    changed = tags | {"phase": "online"}
    sandbox.set_tags(changed)
    equal(f"{kind}: its tags can be set", sandbox.get_tags(), changed)
    eventually(f"{kind}: the list knows the new tags", lambda: listed(changed) == [sandbox.object_id])
    equal(f"{kind}: it runs", sandbox.poll(), None)
    equal(f"{kind}: it is found by its name", modal.Sandbox.from_name(APP, name).object_id, sandbox.object_id)
    equal(f"{kind}: it is found by its id", modal.Sandbox.from_id(sandbox.object_id).poll(), None)
    fails(f"{kind}: its name is taken", modal.exception.AlreadyExistsError, create)

    sandbox.terminate()
    sandbox.wait(raise_on_termination=False)
    equal(f"{kind}: it has been terminated", sandbox.poll(), 137)
    eventually(f"{kind}: it is no longer listed", lambda: listed(tags) == [])
    fails(f"{kind}: its name finds nothing", modal.exception.NotFoundError, lambda: modal.Sandbox.from_name(APP, name))
    ended = modal.Sandbox.from_id(sandbox.object_id)
    equal(f"{kind}: its id still tells how it ended", ended.poll(), 137)

    successor = create()
    differ(f"{kind}: its name is free again", successor.object_id, sandbox.object_id)
    equal(f"{kind}: the successor ends on request", successor.terminate(wait=True), 137)


def equal(what: str, found: object, expected: object) -> None:
    report(what, found == expected, f"expected {expected!r}, found {found!r}")


def differ(what: str, found: object, other: object) -> None:
    report(what, found != other, f"found {found!r} again")


def fails(what: str, error: type[Exception], action) -> None:
    try:
        result = action()
    except error:
        report(what, True, "")
    else:
        report(what, False, f"expected {error.__name__}, found {result!r}")


def eventually(what: str, condition) -> None:
    """For lists, which may lag behind by some seconds."""
    deadline = time.monotonic() + 30
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    report(what, holds, "not within 30 s")


def report(what: str, holds: bool, otherwise: str) -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {what}", flush=True)
    if not holds:
        sys.exit(f"{what}: {otherwise}")


if __name__ == "__main__":
    main()
