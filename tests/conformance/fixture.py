"""Makes the committed record of an official client out of a recording, or holds the one against the other.

    fixture.py CLIENT RECORDING RECORD            fails, with a diff, where they are not the same
    fixture.py CLIENT RECORDING RECORD --newest   the same, whatever version the client says that it is
    fixture.py CLIENT RECORDING RECORD --write    writes the record anew

The record has two parts: the create messages, with the ids in them replaced by ones that do not change; and the calls
of each step, in their order, each with the names of its metadata. Calls that follow each other and are alike are one:
how often a client asks again depends on the time that things take.
"""

import difflib
import json
import sys

from google.protobuf.json_format import MessageToDict
from modal_proto import api_pb2

REQUESTS = {"SandboxCreate": api_pb2.SandboxCreateRequest, "SandboxCreateV2": api_pb2.SandboxCreateV2Request}


def main(client: str, recording: str, record: str, *options: str) -> None:
    with open(recording, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    lacking = {line["answered"] for line in lines if line.get("status") == "UNIMPLEMENTED"}
    if lacking:
        sys.exit(f"the simulated Modal lacks what the client calls: {', '.join(sorted(lacking))}")
    made = record_of(client, lines)
    if options == ("--write",):
        with open(record, "w", encoding="utf-8") as file:
            file.write(laid_out(made) + "\n")
        return
    with open(record, encoding="utf-8") as file:
        kept = file.read()
    if options == ("--newest",):
        made["identity"] = json.loads(kept)["identity"]
    text = laid_out(made) + "\n"
    if text != kept:
        diff = difflib.unified_diff(kept.splitlines(), text.splitlines(), record, "this run", lineterm="")
        print("\n".join(diff))
        sys.exit(f"{client} does not send what {record} holds; after a look at the diff: tests/conformance/run --record")
    print(f"ok   {client} sends what {record} holds")


def laid_out(value: object, depth: int = 0) -> str:
    """JSON with a line for each call and each create, so that a diff shows which of them changed."""
    if not isinstance(value, dict) or depth == 3:
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            calls = ",\n".join(f"{' ' * (depth + 1)}{json.dumps(call)}" for call in value)
            return f"[\n{calls}\n{' ' * depth}]"
        return json.dumps(value)
    entries = (f"{' ' * (depth + 1)}{json.dumps(key)}: {laid_out(entry, depth + 1)}" for key, entry in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{' ' * depth}}}"


def record_of(client: str, lines: list[dict]) -> dict:
    calls = [line for line in lines if "rpc" in line]
    common = set.intersection(*(set(call["metadata"]) for call in calls))
    return {
        "client": client,
        "identity": {name: value for name, value in sorted(calls[0]["metadata"].items()) if value},
        "metadata_of_every_call": sorted(common),
        "steps": steps(lines, common),
        "creates": creates(lines),
    }


def steps(lines: list[dict], common: set[str]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    current: list[dict] | None = None
    for line in lines:
        if "step" in line:
            current = found.setdefault(line["step"], [])
        elif "create" in line or "ids" in line:
            current = None
        elif "rpc" in line and current is not None:
            call = {"rpc": line["rpc"], "metadata": sorted(set(line["metadata"]) - common)}
            if current[-1:] != [call]:
                current.append(call)
    return found


def creates(lines: list[dict]) -> dict[str, dict]:
    found = {}
    name = None
    ids: dict[bytes, bytes] = {}
    for line in lines:
        # What follows in a conversation is no definition of `creates.py`.
        name = None if "step" in line else line.get("create", name)
        for label, made in line.get("ids", {}).items():
            prefix, rest = made.split("-", 1)
            ids[made.encode()] = f"{prefix}-{label:0>{len(rest)}}".encode()
        if name and (request := REQUESTS.get(line.get("rpc", ""))):
            raw = bytes.fromhex(line["message"])
            for made, fixed in ids.items():
                # Of the same length, so that the lengths in the message stay right.
                raw = raw.replace(made, fixed)
            decoded = MessageToDict(request.FromString(raw), preserving_proto_field_name=True)
            # The bytes are what counts; what they say is for people.
            found[name] = {"rpc": line["rpc"], "says": decoded, "bytes": raw.hex()}
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
