"""Stands between a client and the simulated Modal and writes down every call, as it was on the wire.

    recorder.py UPSTREAM FILE    prints the address it listens at, and runs until it is ended

Each call is one line of JSON: its method, its metadata (what could be a secret as its name alone), its message in
hexadecimal digits, and the status of the answer once that is known. Nothing is changed on the way.
"""

import asyncio
import json
import sys
import urllib.parse

from grpclib.client import Channel
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from modal_proto import api_pb2

SERVICE = api_pb2.DESCRIPTOR.services_by_name["ModalClient"]
# Everything else may be a secret or differs from run to run: its name tells enough.
SHOWN = {"x-modal-client-type", "x-modal-client-version", "x-modal-libmodal-version"}


class Bytes(CodecBase):
    """Messages stay what they are on the wire."""

    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


class Details(StatusDetailsCodecBase):
    def encode(self, status, message, details):
        return details

    def decode(self, status, message, data):
        return data


class Recorder:
    def __init__(self, upstream: Channel, path: str) -> None:
        self.upstream = upstream
        self.path = path

    def __mapping__(self) -> dict[str, Handler]:
        handlers = {}
        for method in SERVICE.methods:
            cardinality = {
                (False, False): Cardinality.UNARY_UNARY,
                (False, True): Cardinality.UNARY_STREAM,
                (True, False): Cardinality.STREAM_UNARY,
                (True, True): Cardinality.STREAM_STREAM,
            }[method.client_streaming, method.server_streaming]
            name = f"/{SERVICE.full_name}/{method.name}"
            handlers[name] = Handler(self.forward(name, cardinality), cardinality, bytes, bytes)
        return handlers

    def forward(self, name: str, cardinality: Cardinality):
        async def handle(stream: Stream) -> None:
            message = await stream.recv_message()
            metadata = {key: value if key in SHOWN else "" for key, value in stream.metadata.items()}
            if stream.deadline is not None:
                metadata["grpc-timeout"] = ""
            rpc = name.rsplit("/", 1)[1]
            self.write({"rpc": rpc, "metadata": metadata, "message": message.hex()})
            status = Status.OK
            try:
                async with self.upstream.request(
                    name, cardinality, bytes, bytes, deadline=stream.deadline, metadata=stream.metadata
                ) as call:
                    await call.send_message(message, end=True)
                    async for answer in call:
                        await stream.send_message(answer)
                await stream.send_trailing_metadata(metadata=call.trailing_metadata)
            except GRPCError as error:
                status = error.status
                await stream.send_trailing_metadata(
                    status=status, status_message=error.message, status_details=error.details
                )
            self.write({"answered": rpc, "status": status.name})

        return handle

    def write(self, line: dict) -> None:
        # Whole lines, because the client marks its steps in the same file.
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


async def main(upstream: str, path: str) -> None:
    address = urllib.parse.urlparse(upstream)
    channel = Channel(address.hostname, address.port, codec=Bytes(), status_details_codec=Details())
    server = Server([Recorder(channel, path)], codec=Bytes(), status_details_codec=Details())
    await server.start("127.0.0.1", 0)
    (socket,) = server._server.sockets
    print(f"http://127.0.0.1:{socket.getsockname()[1]}", flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
