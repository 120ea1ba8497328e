"""What Sandrunner does with Modal, done by Modal's official Python client: it must be content with the simulated Modal.

One conversation without a GPU (the second generation of sandboxes) and one with (the first). Started by `run`, with
`client.mjs` as its counterpart for JavaScript: a step has the same name in both.
"""

import sys
import time

import modal

from marks import mark

APP = "sandrunner-conformance"
VOLUME = "conformance-cache"


def main() -> None:
    print(f"modal {modal.__version__}, python {sys.version.split()[0]}")
    step("hello")
    modal.Client.from_env().hello()
    step("app")
    app = modal.App.lookup(APP, create_if_missing=True)
    step("app again")
    equal("the App is found again", modal.App.lookup(APP).app_id, app.app_id)
    step("image")
    image = modal.Image.from_registry("ubuntu:24.04").run_commands("echo first").run_commands("echo second").build(app)
    step("image by id")
    equal("the image is found by its id", modal.Image.from_id(image.object_id).build(app).object_id, image.object_id)
    step("volume")
    volume = modal.Volume.from_name(VOLUME, create_if_missing=True).hydrate()
    step("secret stored")
    modal.Secret.objects.create("conformance", {"FROM_SECRET": "hello"}, allow_existing=True)
    step("secret by name")
    secret = modal.Secret.from_name("conformance").hydrate()
    step("secret unknown")
    fails("an unknown Secret", modal.exception.NotFoundError, lambda: modal.Secret.from_name("none").hydrate())
    for gpu in (None, "A100"):
        converse(app, image, gpu, {"volumes": {"/cache": volume}, "secrets": [secret]})
    step("secret deleted")
    modal.Secret.objects.delete("conformance")
    fails("a deleted Secret", modal.exception.NotFoundError, lambda: modal.Secret.from_name("conformance").hydrate())


def converse(app: modal.App, image: modal.Image, gpu: str | None, parts: dict[str, object]) -> None:
    kind = f"GPU {gpu}" if gpu else "no GPU"
    generation = "v1" if gpu else "v2"
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
            **parts,
        )

    def listed(wanted: dict[str, str]) -> list[str]:
        return [sandbox.object_id for sandbox in modal.Sandbox.list(app_id=app.app_id, tags=wanted)]

    step(f"{generation} create")
    sandbox = create()
    # The client tells the generations apart by the form of the id: 22 characters are the first, a ULID the second.
    equal(f"{kind}: the id has the form of its generation", len(sandbox.object_id), len("sb-") + (22 if gpu else 26))
    step(f"{generation} list")
    eventually(f"{kind}: it is listed by its tags", lambda: listed(tags) == [sandbox.object_id])
    equal(f"{kind}: a tag it lacks excludes it", listed(tags | {"more": "x"}), [])
    step(f"{generation} tags get")
    equal(f"{kind}: it has the tags it was created with", sandbox.get_tags(), tags)
    step(f"{generation} tags set")
    changed = tags | {"phase": "online"}
    sandbox.set_tags(changed)
    step(f"{generation} tags changed")
    equal(f"{kind}: its tags can be set", sandbox.get_tags(), changed)
    eventually(f"{kind}: the list knows the new tags", lambda: listed(changed) == [sandbox.object_id])
    step(f"{generation} poll")
    equal(f"{kind}: it runs", sandbox.poll(), None)
    step(f"{generation} by name")
    equal(f"{kind}: it is found by its name", modal.Sandbox.from_name(APP, name).object_id, sandbox.object_id)
    step(f"{generation} by id")
    equal(f"{kind}: it is found by its id", modal.Sandbox.from_id(sandbox.object_id).poll(), None)
    step(f"{generation} name taken")
    fails(f"{kind}: its name is taken", modal.exception.AlreadyExistsError, create)

    step(f"{generation} terminate")
    sandbox.terminate()
    step(f"{generation} wait")
    sandbox.wait(raise_on_termination=False)
    step(f"{generation} ended")
    equal(f"{kind}: it has been terminated", sandbox.poll(), 137)
    eventually(f"{kind}: it is no longer listed", lambda: listed(tags) == [])
    fails(f"{kind}: its name finds nothing", modal.exception.NotFoundError, lambda: modal.Sandbox.from_name(APP, name))
    ended = modal.Sandbox.from_id(sandbox.object_id)
    equal(f"{kind}: its id still tells how it ended", ended.poll(), 137)
    step(f"{generation} successor")
    successor = create()
    differ(f"{kind}: its name is free again", successor.object_id, sandbox.object_id)
    equal(f"{kind}: the successor ends on request", successor.terminate(wait=True), 137)


def step(name: str) -> None:
    mark(step=name)


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
