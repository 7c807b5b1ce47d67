from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN
from websockets.protocol import Protocol as Reader

from yapserver import daphne_patches
from yapserver.daphne_patches import (
    MAX_BUFFERED_BYTES,
    MAX_INBOUND_BYTES,
    MAX_STALLED_S,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    DirectWriter,
    patched,
)


class Timer:
    def __init__(self, seconds: float, call: Any) -> None:
        self.seconds, self.call, self.cancelled = seconds, call, False

    def active(self) -> bool:
        return not self.cancelled

    def cancel(self) -> None:
        self.cancelled = True


class Transport:
    def __init__(self) -> None:
        self.producer: Any = "the HTTP channel's"
        self.aborted = False
        self.reads = True
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def unregisterProducer(self) -> None:  # noqa: N802
        self.producer = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        assert self.producer is None
        assert streaming
        self.producer = producer

    def pauseProducing(self) -> None:  # noqa: N802
        self.reads = False

    def resumeProducing(self) -> None:  # noqa: N802
        self.reads = True

    def abortConnection(self) -> None:  # noqa: N802
        self.aborted = True


class Protocol:
    """Daphne's WebSocket protocol, as far as it is touched."""

    STATE_OPEN, STATE_CLOSED = 3, 0

    def __init__(self) -> None:
        self.transport = Transport()
        self.maxMessagePayloadSize = self.maxFramePayloadSize = 0
        self.state = self.STATE_OPEN
        self.close_codes: list[int] = []

    def sendCloseFrame(self, code: int, isReply: bool) -> None:  # noqa: N802, N803
        assert not isReply
        self.close_codes.append(code)


class Daphne:
    def __init__(self) -> None:
        self.protocol = Protocol()
        self.sent: list[dict[str, Any]] = []
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        send = partial(self._handle_reply, self.protocol)
        self.receive, self.send, self.ended = patched(self.queue.get, send)

    async def _handle_reply(self, protocol: Protocol, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def token(self, size: int) -> None:
        await self.send({"type": "websocket.send", "text": "x" * size})


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Timer]]:
    from twisted.internet import reactor

    made: list[Timer] = []

    def call_later(seconds: float, call: Any) -> Timer:
        made.append(Timer(seconds, call))
        return made[-1]

    monkeypatch.setattr(reactor, "callLater", call_later)
    return made  # type: ignore[return-value]


def test_other_servers_wait_in_send_themselves() -> None:
    async def send(message: dict[str, Any]) -> None: ...

    async def receive() -> dict[str, Any]:
        return {}

    for other in (send, partial(send, {})):
        same_receive, same_send, ended = patched(receive, other)
        assert same_receive is receive
        assert same_send is other
        ended()


async def test_messages_above_the_protocols_limit_come_in_to_be_answered() -> None:
    daphne = Daphne()
    assert daphne.protocol.maxMessagePayloadSize == daphne.protocol.maxFramePayloadSize == MAX_INBOUND_BYTES
    assert MAX_INBOUND_BYTES > 1024 * 1024


async def test_a_client_that_reads_is_left_alone(timers: list[Timer]) -> None:
    daphne = Daphne()
    for _ in range(10):
        await daphne.token(MAX_BUFFERED_BYTES)
        daphne.protocol.transport.producer.pauseProducing()
        daphne.protocol.transport.producer.resumeProducing()
    assert len(daphne.protocol.transport.written) == 10
    assert not daphne.protocol.transport.aborted
    assert all(timer.cancelled for timer in timers)


async def test_a_client_that_does_not_read_is_cut_off_by_the_clock(timers: list[Timer]) -> None:
    daphne = Daphne()
    producer = daphne.protocol.transport.producer
    producer.pauseProducing()
    producer.pauseProducing()  # every further write says so again
    assert [timer.seconds for timer in timers] == [MAX_STALLED_S]
    timers[0].call()
    assert daphne.protocol.transport.aborted


async def test_a_client_that_does_not_read_is_cut_off_by_what_piles_up(timers: list[Timer]) -> None:
    daphne = Daphne()
    producer = daphne.protocol.transport.producer
    producer.pauseProducing()
    for _ in range(10):
        await daphne.token(MAX_BUFFERED_BYTES // 10 - 10)  # and a frame's head
        producer.pauseProducing()
    before = daphne.protocol.transport.aborted
    await daphne.token(100)
    assert (before, daphne.protocol.transport.aborted) == (False, True)
    assert len(daphne.protocol.transport.written) == 10
    assert timers[0].cancelled


async def test_a_connection_that_ended_needs_no_clock(timers: list[Timer]) -> None:
    daphne = Daphne()
    daphne.protocol.transport.producer.pauseProducing()
    daphne.protocol.transport.producer.stopProducing()
    assert timers[0].cancelled


@pytest.mark.parametrize("code", [1000, 1008, 1012, 1013, 4000])
async def test_every_close_code_is_sent(code: int) -> None:
    daphne = Daphne()
    await daphne.send({"type": "websocket.close", "code": code})
    assert daphne.protocol.close_codes == [code]
    assert not daphne.sent
    daphne.protocol.state = Protocol.STATE_CLOSED
    await daphne.send({"type": "websocket.close", "code": code})
    assert daphne.protocol.close_codes == [code]


@pytest.mark.parametrize("text", ["", "a", "é" * 62 + "a", "é" * 63, "a" * 65535, "a" * 65536, '{"text":"☕ \\n"}'])
async def test_a_text_frame_is_what_any_client_reads(text: str) -> None:
    daphne = Daphne()
    await daphne.send({"type": "websocket.send", "text": text})
    reader = Reader(CLIENT, state=OPEN, max_size=None)
    reader.receive_data(b"".join(daphne.protocol.transport.written))
    (frame,) = reader.events_received()
    assert (frame.opcode, frame.fin, frame.data.decode()) == (Opcode.TEXT, True, text)  # type: ignore[union-attr]


async def test_several_messages_are_one_write(timers: list[Timer]) -> None:
    daphne = Daphne()
    texts = ["a", "", "é" * 70, "b" * 70000]
    await daphne.send({"type": "websocket.send", "texts": texts})
    (written,) = daphne.protocol.transport.written
    reader = Reader(CLIENT, state=OPEN, max_size=None)
    reader.receive_data(written)
    assert [frame.data.decode() for frame in reader.events_received()] == texts  # type: ignore[union-attr]
    daphne.protocol.transport.producer.pauseProducing()
    await daphne.send({"type": "websocket.send", "texts": ["x" * MAX_BUFFERED_BYTES, "y"]})
    assert daphne.protocol.transport.aborted
    assert len(daphne.protocol.transport.written) == 1


class Socket(Transport):
    """A Twisted TCP transport over a socket that takes ``room`` bytes now."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.connected, self.dataBuffer, self._tempDataLen = 1, b"", 0
        self.disconnecting, self.made_writes = False, 0
        self.room: int | None = room
        self.taken = b""

    @property
    def socket(self) -> Socket:
        return self

    def send(self, data: bytes) -> int:
        if self.room is None:
            raise ConnectionResetError
        now = data[: self.room]
        self.taken, self.room = self.taken + now, self.room - len(now)
        return len(now)

    def doWrite(self) -> None:  # noqa: N802
        self.made_writes += 1

    def write(self, data: bytes) -> None:
        self._tempDataLen += len(data)
        super().write(data)


def test_what_the_socket_takes_leaves_at_once() -> None:
    transport = Socket(room=100)
    DirectWriter(transport).write(b"hello")
    assert (transport.taken, transport.written) == (b"hello", [])


def test_what_the_socket_does_not_take_is_left_to_twisted_in_order() -> None:
    transport = Socket(room=7)
    for frame in (b"hello", b"world", b"again"):
        DirectWriter(transport).write(frame)
        transport.room = transport.room or 100  # there is room again, but what waits goes first
    assert transport.taken + b"".join(transport.written) == b"helloworldagain"
    assert transport.taken == b"hellowo"


@pytest.mark.parametrize("state", ["gone", "broken"])
def test_a_connection_that_is_lost_is_left_to_twisted(state: str) -> None:
    transport = Socket(room=100)
    if state == "gone":
        transport.connected = 0
    else:
        transport.room = None
    DirectWriter(transport).write(b"hello")
    assert (transport.taken, transport.written) == (b"", [b"hello"])


@pytest.mark.parametrize(("connected", "disconnecting", "writes"), [(1, False, 1), (0, False, 0), (1, True, 0)])
def test_the_end_of_a_connection_is_the_reactors(connected: int, disconnecting: bool, writes: int) -> None:
    transport = Socket(room=100)
    transport.connected, transport.disconnecting = connected, disconnecting
    DirectWriter(transport).flush()
    assert transport.made_writes == writes


async def test_nothing_is_written_behind_the_end() -> None:
    daphne = Daphne()
    daphne.protocol.state = Protocol.STATE_CLOSED
    await daphne.token(5)
    assert not daphne.protocol.transport.written


def test_the_limits() -> None:
    assert daphne_patches.MAX_BUFFERED_BYTES <= 1024 * 1024


@pytest.mark.parametrize(("text", "number"), [("x", MAX_WAITING), ("x" * (MAX_WAITING_BYTES // 4), 4)])
async def test_reading_stops_while_too_much_waits_and_goes_on_in_order(text: str, number: int) -> None:
    daphne = Daphne()
    reads = []
    for count in range(number):
        daphne.queue.put_nowait({"type": "websocket.receive", "text": text, "count": count})
        reads.append(daphne.protocol.transport.reads)
    assert reads == [True] * (number - 1) + [False]
    daphne.queue.put_nowait({"type": "websocket.disconnect"})  # Twisted's buffer may hold more
    got = [await daphne.receive() for _ in range(number)]
    assert [message["count"] for message in got] == list(range(number))
    assert daphne.protocol.transport.reads
    assert (await daphne.receive())["type"] == "websocket.disconnect"


async def test_reading_goes_on_when_the_application_has_ended() -> None:
    daphne = Daphne()
    for _ in range(MAX_WAITING):
        daphne.queue.put_nowait({"type": "websocket.receive", "bytes": b"x"})
    assert not daphne.protocol.transport.reads
    daphne.ended()
    assert daphne.protocol.transport.reads  # the client's close frame has to be read


async def test_a_handshake_is_refused_with_the_applications_status() -> None:
    daphne = Daphne()
    protocol: Any = daphne.protocol
    protocol.state = protocol.STATE_CONNECTING = 1
    protocol.handshake_deferred, protocol.wasClean = object(), False
    written: list[bytes] = []
    ended: list[Any] = []
    protocol.sendData = written.append
    protocol.dropConnection = lambda abort: ended.append(abort)
    protocol.server = type("Server", (), {"protocol_disconnected": lambda self, gone: ended.append(gone)})()
    headers = [(b"retry-after", b"7"), (b"content-type", b"application/json")]
    await daphne.send({"type": "websocket.http.response.start", "status": 503, "headers": headers})
    await daphne.send({"type": "websocket.http.response.body", "body": b"{", "more_body": True})
    assert not written
    await daphne.send({"type": "websocket.http.response.body", "body": b"}"})
    head, _, body = b"".join(written).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    assert {b"retry-after: 7", b"content-type: application/json", b"content-length: 2"} <= set(lines)
    assert body == b"{}"
    assert ended == [protocol, False]
    assert not hasattr(protocol, "handshake_deferred"), "Daphne rejects a handshake that has one after a while"
    assert not daphne.sent


async def test_a_refusal_of_a_client_that_has_left_is_dropped() -> None:
    daphne = Daphne()
    protocol: Any = daphne.protocol
    protocol.STATE_CONNECTING, protocol.state = 1, protocol.STATE_CLOSED
    await daphne.send({"type": "websocket.http.response.start", "status": 401})
    await daphne.send({"type": "websocket.http.response.body", "body": b"{}"})
    assert not daphne.sent
