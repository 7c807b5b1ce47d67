"""A scripted server for the wire protocol: refusals, crashes and omitted fields."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

REPLY = "Hello there, Mara. It is a fine day by the sea! Biscuit would like some lemon cake."


@dataclass
class Script:
    """Behaviour of the server. `full_times` is the number of connections that are refused as full; -1: all."""

    api_key: str = "right-key"
    full_times: int = 0
    retry_in: float | None = None
    refuse_as: str = "server_at_capacity"
    die_after_tokens: int | None = None
    die_times: int = 1
    bare: bool = False  # omits every optional field, including request_id
    tool: str | None = "no"
    token_delay: float = 0.0
    reply: str = REPLY
    updates: int = 100  # persona updates before the limit
    update_retry_in: float = 1.0
    silent: bool = False  # accepts a start and sends nothing
    error_mid_turn: str | None = None
    personas: list[dict[str, str]] | None = None
    drain_after_turn: float | None = None  # after the first turn: `draining` with these seconds, then 1012


@dataclass
class ScriptedServer:
    """A running server. `received` holds every message in order, `connections` their number, `most_open` the maximum at
    one time.
    """

    script: Script
    port: int = 0
    received: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    deaths: int = 0
    open: int = 0
    most_open: int = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def starts(self) -> list[dict[str, Any]]:
        """Return the `start` messages so far."""
        return [message for message in self.received if message.get("type") == "start"]

    def http(self, connection: ServerConnection, request: Request) -> Response | None:
        """Serve the list of personas; every other path except /ws is 404."""
        path = request.path.partition("?")[0]
        if path == "/ws":
            return None
        if path == "/api/v1/personas/" and self.script.personas is not None:
            if request.headers.get("X-API-Key") != self.script.api_key:
                return connection.respond(HTTPStatus.UNAUTHORIZED, "no\n")
            body = json.dumps(self.script.personas).encode()
            headers = Headers([("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            headers["Connection"] = "close"
            return Response(200, "OK", headers, body)
        return connection.respond(HTTPStatus.NOT_FOUND, "not found\n")

    async def handle(self, line: ServerConnection) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            await self._serve(line)
        finally:
            self.open -= 1

    async def _serve(self, line: ServerConnection) -> None:
        script = self.script
        if line.request is None or line.request.headers.get("X-API-Key") != script.api_key:
            await self._refuse(line, 1008, {"error_code": "authentication_failed", "message": "unknown API key"})
        elif script.full_times:
            script.full_times -= 1
            places = {"active": 8, "max": 8, "available": 0, "at_capacity": True}
            full: dict[str, Any] = {"error_code": script.refuse_as, "message": "no free place", "capacity": places}
            if script.bare:
                await line.close(1013)
                return
            if script.retry_in is not None:
                full["retry_in"] = script.retry_in
            await self._refuse(line, 1013, full)
        else:
            await _Talk(self, line).run()

    async def _refuse(self, line: ServerConnection, code: int, error: dict[str, Any]) -> None:
        await line.send(json.dumps({"type": "error", **error}))
        await asyncio.sleep(0.01)  # a separate packet, so that the client has to wait
        await line.close(code)


class _Talk:
    """One connection: messages in, turns out."""

    def __init__(self, server: ScriptedServer, line: ServerConnection) -> None:
        self.server = server
        self.script = server.script
        self.line = line
        self.turns = 0
        self.style: dict[str, str] = {}
        self.tokens_said = 0
        self.running: asyncio.Task[None] | None = None
        self.finished: set[int] = set()
        self.request: dict[str, Any] = {}

    async def run(self) -> None:
        try:
            async for data in self.line:
                message = json.loads(data)
                self.server.received.append(message)
                await self._take(message)
        except ConnectionClosed:
            pass
        finally:
            if self.running is not None:
                self.running.cancel()

    async def send(self, frame: dict[str, Any], to: dict[str, Any], turn: int | None = None) -> None:
        if self.script.bare:
            kept = {"type", "for", "ok", "text", "status", "cancelled", "error_code"}
            frame = {key: value for key, value in frame.items() if key in kept}
        else:
            frame |= {"request_id": to["request_id"]} if "request_id" in to else {}
            frame |= {"turn": turn} if turn is not None else {}
        await self.line.send(json.dumps(frame))

    async def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ping":
            await self.send({"type": "pong"}, message)
        elif kind in ("start", "followup"):
            await self._cancel()
            self.turns += 1
            self.request = message
            self.running = asyncio.create_task(self._turn(message, self.turns))
        elif kind == "cancel":
            if not await self._cancel():
                await self.send({"type": "done", "cancelled": True}, message)
        elif kind == "resume":
            await self.send({"type": "error", "error_code": "unknown_session", "message": "nothing to resume"}, message)
        elif kind == "chat_prompt":
            await self._update(message)
        elif kind == "end":
            await self.send({"type": "connection_closed", "reason": "client_request"}, message)
            await self.line.close(1000)

    async def _update(self, message: dict[str, Any]) -> None:
        ack: dict[str, Any] = {"type": "ack", "for": "chat_prompt"}
        if self.script.updates > 0:
            self.script.updates -= 1
            self.style |= {key: message[key] for key in ("gender", "personality") if key in message}
            await self.send({**ack, "ok": True, "code": 200, "message": "updated", **self.style}, message)
        else:
            self.script.updates = 100
            limit = {"error_code": "chat_prompt_update_rate_limited", "message": "too many persona updates"}
            await self.send(
                {**ack, "ok": False, "code": 429, **limit, "retry_in": self.script.update_retry_in}, message
            )

    async def _cancel(self) -> bool:
        running, self.running = self.running, None
        if running is None or self.turns in self.finished:
            return False
        running.cancel()
        await asyncio.wait({running})
        await self.send({"type": "done", "cancelled": True}, self.request, self.turns)
        return True

    async def _turn(self, message: dict[str, Any], turn: int) -> None:
        script = self.script
        if message["type"] == "start":
            ack = {"type": "ack", "for": "start", "ok": True, "session_id": message["session_id"]}
            self.style |= {key: message[key] for key in ("gender", "personality") if key in message}
            await self.send({**ack, **self.style, "now": "22/11/2026 Sunday 04:28 PM (Afternoon)"}, message, turn)
        if script.silent:
            return
        if script.tool is not None and message["type"] == "start":
            calls = [{"name": "take_screenshot", "arguments": {}}] if script.tool == "yes" else []
            await self.send({"type": "toolcall", "status": script.tool, "raw": calls}, message, turn)
        said = 0
        words = script.reply.split(" ")
        for index, word in enumerate(words):
            await asyncio.sleep(script.token_delay)
            if script.die_after_tokens == said and self.server.deaths < script.die_times:
                self.server.deaths += 1
                self.line.transport.abort()
                return
            if script.error_mid_turn and said == 2:
                await self.send(
                    {"type": "error", "error_code": script.error_mid_turn, "message": "gone"}, message, turn
                )
                break
            await self.send({"type": "token", "text": word if index == 0 else f" {word}"}, message, turn)
            said += 1
        else:
            await self.send({"type": "final", "normalized_text": script.reply}, message, turn)
        before, self.tokens_said = self.tokens_said, self.tokens_said + said
        prompt = min(100 + before + 20 * turn, 5160)
        usage = {"prompt_tokens": prompt, "cached_tokens": before, "completion_tokens": said, "finish_reason": "stop"}
        self.finished.add(turn)
        await self.send({"type": "done", "usage": usage}, message, turn)
        if script.drain_after_turn is not None:
            await self.send({"type": "draining", "reconnect_in": script.drain_after_turn}, {})
            script.drain_after_turn = None
            await self.line.close(1012)


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ScriptedServer]:
    """Run the server on a free port of this machine until the block ends."""
    server = ScriptedServer(script)
    async with serve(server.handle, "127.0.0.1", 0, process_request=server.http, close_timeout=1) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        yield server
