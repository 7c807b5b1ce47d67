"""Event streams over Twisted's own HTTP channel and request, on a transport in memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from twisted.internet.testing import StringTransport
from twisted.web import http

from yapserver.daphne_http import bounded_http

Message = dict[str, Any]


class Request(http.Request):  # type: ignore[misc, unused-ignore]
    """A request that keeps itself for the test; the application answers through :func:`answer`."""

    found: Request

    def process(self) -> None:
        type(self).found = self


async def answer(request: Request, message: Message) -> None:
    """What Daphne's ``handle_reply`` does with a message."""
    if message["type"] == "http.response.start":
        request.setResponseCode(message["status"])
        return
    http.Request.write(request, message["body"])
    if not message["more_body"]:
        request.finish()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_stream_is_framed_and_ended_once(version: bytes) -> None:
    transport = StringTransport()
    channel = http.HTTPChannel()
    channel.requestFactory = Request
    channel.makeConnection(transport)
    channel.dataReceived(b"POST /v1 HTTP/%b\r\nHost: a\r\nContent-Length: 0\r\n\r\n" % version)
    send = bounded_http(partial(answer, Request.found))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for body, more in ((b"one", True), (b"", True), (b"two", True), (b"three", False)):
        await send({"type": "http.response.body", "body": body, "more_body": more})
    await send({"type": "http.response.body", "body": b"late", "more_body": False})
    _, body = transport.value().split(b"\r\n\r\n", 1)
    chunked = b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"
    assert body == (chunked if version == b"1.1" else b"onetwothree")
    assert transport.producer in (channel, None)  # the request has given it back
