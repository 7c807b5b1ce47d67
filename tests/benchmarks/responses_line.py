"""A connection to Yap's Responses WebSocket, with the minimal client of :mod:`tests.benchmarks.websocket_line`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from tests.benchmarks.prompts import Prompt
from tests.benchmarks.websocket_line import MinimalWebSocket, text_frame

_ENDS = ("response.completed", "response.incomplete", "response.failed")
_CANCEL = text_frame(b'{"type":"response.cancel"}')


class ResponsesLine(MinimalWebSocket):
    """One Responses connection. Every turn is a conversation of its own; the server stores each response.

    Args:
        port: the server's port.
        model: the name of the bare chat model.
        sampling: fields of each request.
        key: the API key.
    """

    path = "/v1/responses"
    content = b'{"type":"response.output_text.delta"'

    def __init__(self, port: int, model: str, sampling: Mapping[str, Any], key: str) -> None:
        super().__init__(port, key)
        self._fixed = {"type": "response.create", "model": model, **sampling}

    async def say(self, prompt: Prompt, **more: Any) -> None:
        await self.open()
        message = {**self._fixed, "instructions": prompt.persona, "input": prompt.utterance}
        frame = text_frame(json.dumps(message).encode())
        self._begin(perf_counter())
        self._transport.write(frame)

    def cancel(self) -> None:
        self.timeline.cancelled = perf_counter()
        self._transport.write(_CANCEL)

    def _message(self, message: dict[str, Any], now: float) -> None:
        kind = message["type"]
        if kind == "error":
            self.last_error = message["error"]["code"]
            self._end(now, f"{self.last_error}: {message['error']['message']}")
        elif kind in _ENDS:
            response = message["response"]
            if usage := response["usage"]:
                self.timeline.tokens = usage["output_tokens"]
                self.timeline.prompt_tokens = usage["input_tokens"]
                self.timeline.cached_tokens = usage["input_tokens_details"]["cached_tokens"]
            failed = kind == "response.failed"
            self._end(now, response["error"]["message"] if failed else None)
