"""Sandboxes of every kind that Sandrunner asks for, created by Modal's official Python client.

What it sends is recorded and compared with what Sandrunner sends for the same definition: `creates.mjs` has the same
definitions under the same names, and so has the test in `src/modal/spec/official.rs`. Maps have one entry each, so that
the messages do not depend on the order of maps.
"""

import modal

from marks import mark

APP = "sandrunner-creates"


def main() -> None:
    app = modal.App.lookup(APP, create_if_missing=True)
    image = modal.Image.from_registry("ubuntu:24.04").build(app)
    cache = modal.Volume.from_name("creates-cache", create_if_missing=True).hydrate()
    tools = modal.Volume.from_name("creates-tools", create_if_missing=True).hydrate()
    for name in ("creates-one", "creates-two"):
        modal.Secret.objects.create(name, {"FROM_SECRET": name}, allow_existing=True)
    one = modal.Secret.from_name("creates-one").hydrate()
    two = modal.Secret.from_name("creates-two").hydrate()
    ids = {"app": app.app_id, "image": image.object_id, "cache": cache.object_id, "tools": tools.object_id}
    mark(ids=ids | {"one": one.object_id, "two": two.object_id})

    env = {"env": {"GREETING": "hello"}}
    volumes = {"volumes": {"/cache": cache, "/opt/tools": tools.read_only()}}
    cidrs = {"outbound_cidr_allowlist": ["140.82.112.0/20", "185.199.108.0/22"]}
    domains = {"outbound_domain_allowlist": ["github.com", "*.actions.githubusercontent.com"]}
    limits = {"cpu": (1.5, 4.0), "memory": (2048, 4096)}
    definitions: dict[str, dict[str, object]] = {
        "plain": env,
        "no-environment": {},
        "longest": env | {"timeout": 86_400},
        "fraction": env | {"cpu": 1.001, "memory": 1000},
        "limits": env | limits,
        "regions": env | {"region": ["us-east", "eu-west"]},
        "volumes": env | volumes,
        "cidrs": env | cidrs,
        "domains": env | domains,
        "cidrs-and-domains": env | cidrs | domains,
        "secrets": env | {"secrets": [two, one]},
        "secrets-alone": {"secrets": [one]},
        "workdir": env | {"workdir": "/srv/job"},
        "docker": env | {"experimental_options": {"enable_docker": True}},
        "gvisor": env | {"runtime": "gvisor"},
        "vm": env | {"runtime": "vm"},
        "gpu": {"gpu": "A100-80GB", "secrets": [one]},
        "gpus": {"gpu": "h100:2", "secrets": [two, one]},
        "everything": env | limits | volumes | cidrs | domains
        | {"secrets": [one, two], "region": "us-east", "workdir": "/srv/job", "runtime": "vm"},
        "everything-gpu": limits | volumes | cidrs | domains
        | {"gpu": "T4", "secrets": [one, two], "region": "us-east", "workdir": "/srv/job", "runtime": "gvisor"},
    }
    for name, definition in definitions.items():
        usual = {"name": f"creates-{name}", "tags": {"deployment": "main", "job": "7"}, "app": app, "image": image}
        mark(create=name)
        modal.Sandbox.create(
            "/bin/bash", "-c", "true", **({"timeout": 3600, "cpu": 2.0, "memory": 4096} | usual | definition)
        ).terminate()
    print(f"ok   {len(definitions)} definitions are created")


if __name__ == "__main__":
    main()
