"""Chat completions as the client reads them: server-sent events of a stream, or one object.

The constant part of a chunk is encoded once for each response, so that a chunk costs the encoding of its text alone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from inference.openai.errors import OpenAIError, from_protocol_error
from inference.protocol.errors import ErrorCode, ProtocolError

DONE = "data: [DONE]\n\n"


def usage_of(usage: Mapping[str, Any], *, called: bool = False) -> dict[str, Any]:
    """Return OpenAI's ``usage``.

    Args:
        usage: ``GenerationUsage.as_frame``.
        called: the answer is a tool call, so the tool engine's tokens are reported.
    """
    prompt = usage["tool_prompt_tokens"] if called else usage["prompt_tokens"]
    reasoning = usage.get("reasoning_tokens", 0)
    completion = usage["tool_completion_tokens"] if called else usage["completion_tokens"] + reasoning
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0 if called else usage["cached_tokens"], "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def finish_reason(usage: Mapping[str, Any], *, called: bool = False) -> str:
    """Return ``stop``, ``length`` or ``tool_calls``. A reply that was cut by the time limit ended by its length."""
    if called:
        return "tool_calls"
    return "stop" if usage["finish_reason"] == "stop" else "length"


def tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return one call in OpenAI's form; the arguments are JSON text."""
    arguments = orjson.dumps(call["arguments"]).decode()
    identity = f"call_{uuid.uuid4().hex[:24]}"
    return {"id": identity, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def error_of(code: str, message: str, details: Mapping[str, Any]) -> OpenAIError:
    """Return the error of a failed turn in OpenAI's form."""
    return from_protocol_error(ProtocolError(code, message, **details))


class EventStream:
    """The events of one streamed reply (``inference.turn_frames.FramesOfTurn``); a subclass encodes the text.

    Args:
        identity: the beginning of the response's id.
        kind: the ``object`` of every chunk.
        model: echoed in each chunk.
        include_usage: send a last chunk with the usage.

    Attributes:
        ending: the last chunks, which are sent with the end of the HTTP body: when the client reads them, the key's
            slot is free. Empty before the end, and after an error or a cancellation.
    """

    def __init__(self, identity: str, kind: str, model: str, *, include_usage: bool) -> None:
        constant = {"id": f"{identity}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}
        self._head = f"data: {orjson.dumps(constant).decode()[:-1]},"  # the constant beginning of every chunk
        self._include_usage = include_usage
        self.ending = ""
        self._began = False
        self._called = False
        self._failed = False

    def token(self, text: str) -> str:
        """Return a chunk with text."""
        raise NotImplementedError

    def toolcall(self, calls: list[dict[str, Any]], score: float | None = None) -> str:
        """Return nothing: without tools there is no call."""
        return ""

    def final(self, text: str) -> str:
        """Return nothing: the end comes with the usage."""
        return ""

    def error(self, code: str, message: str, **details: Any) -> str:
        """Return the error; nothing for a reply that was cut by the time limit, which ends with ``length``."""
        if code == ErrorCode.GENERATION_TIMEOUT and self._began:
            return ""
        self._failed = True
        return f"data: {error_of(code, message, details).body().decode()}\n\n"

    def done(self, usage: Mapping[str, Any] | None = None, *, cancelled: bool = False) -> str:
        """Keep the last chunks as :attr:`ending`."""
        if not self._failed and usage is not None:
            self.ending = self._last_chunk(finish_reason(usage, called=self._called))
            if self._include_usage:
                numbers = orjson.dumps(usage_of(usage, called=self._called)).decode()
                self.ending += f'{self._head}"choices":[],"usage":{numbers}}}\n\n'
            self.ending += DONE
        return ""

    def _last_chunk(self, finish: str) -> str:
        raise NotImplementedError

    def _chunk(self, choice: Mapping[str, Any]) -> str:
        return f'{self._head}"choices":{orjson.dumps([choice]).decode()}}}\n\n'


class ChatStream(EventStream):
    """The events of one streamed chat completion.

    The role comes with the first text: clients take the first chunk with a choice for the first token.

    Args:
        model: echoed in each chunk.
        include_usage: send a last chunk with the usage.
    """

    def __init__(self, model: str, *, include_usage: bool) -> None:
        super().__init__("chatcmpl", "chat.completion.chunk", model, include_usage=include_usage)
        self._text_head = self._head + '"choices":[{"index":0,"delta":{"content":'
        self._first_head = self._head + '"choices":[{"index":0,"delta":{"role":"assistant","content":'

    def token(self, text: str) -> str:
        """Return a chunk with text."""
        head, self._began = (self._text_head if self._began else self._first_head), True
        return f'{head}{orjson.dumps(text).decode()}}},"finish_reason":null}}]}}\n\n'

    def toolcall(self, calls: list[dict[str, Any]], score: float | None = None) -> str:
        """Return the chunks of the tool calls; nothing for a no."""
        self._called = bool(calls)
        chunks = []
        for index, call in enumerate(map(tool_call, calls)):
            function = call["function"]
            begun = {"index": index, **call, "function": {**function, "arguments": ""}}
            role = {} if self._began else {"role": "assistant", "content": None}
            chunks.append(self._delta({**role, "tool_calls": [begun]}))
            arguments = {"index": index, "function": {"arguments": function["arguments"]}}
            chunks.append(self._delta({"tool_calls": [arguments]}))
            self._began = True
        return "".join(chunks)

    def _last_chunk(self, finish: str) -> str:
        return self._delta({} if self._began else {"role": "assistant", "content": ""}, finish)

    def _delta(self, delta: Mapping[str, Any], finish: str | None = None) -> str:
        return self._chunk({"index": 0, "delta": delta, "finish_reason": finish})


class GatheredReply:
    """A reply that is not streamed (``inference.turn_frames.FramesOfTurn``): every frame is empty, the parts are kept.

    Attributes:
        text: the delivered text.
        calls: the tool calls in OpenAI's form.
        failure: the error; None where there is none.
        usage: ``GenerationUsage.as_frame``; None where the turn was cancelled.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.failure: OpenAIError | None = None
        self.usage: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The delivered text."""
        return "".join(self._pieces)

    def token(self, text: str) -> str:
        """Keep text."""
        self._pieces.append(text)
        return ""

    def toolcall(self, calls: list[dict[str, Any]], score: float | None = None) -> str:
        """Keep tool calls."""
        self.calls = [tool_call(call) for call in calls]
        return ""

    def final(self, text: str) -> str:
        """Keep nothing more."""
        return ""

    def error(self, code: str, message: str, **details: Any) -> str:
        """Keep the error. A reply that was cut by the time limit is a reply."""
        if code != ErrorCode.GENERATION_TIMEOUT or not self._pieces:
            self.failure = error_of(code, message, details)
        return ""

    def done(self, usage: Mapping[str, Any] | None = None, *, cancelled: bool = False) -> str:
        """Keep the usage."""
        self.usage = usage
        return ""

    def finished(self) -> Mapping[str, Any]:
        """Return the usage of a whole reply.

        Raises:
            OpenAIError: the turn failed, or was cancelled by the server.
        """
        if self.failure is not None:
            raise self.failure
        if self.usage is None:
            raise OpenAIError(503, "server_error", "the response was cancelled", kind="server_error")
        return self.usage


def chat_completion(reply: GatheredReply, model: str) -> bytes:
    """Return the body of a chat completion that is not streamed.

    Args:
        reply: the whole reply.
        model: echoed.

    Raises:
        OpenAIError: the turn failed.
    """
    usage, called = reply.finished(), bool(reply.calls)
    message: dict[str, Any] = {"role": "assistant", "content": None if called else reply.text, "refusal": None}
    if called:
        message["tool_calls"] = reply.calls
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(usage, called=called),
    }
    return orjson.dumps({
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage_of(usage, called=called),
    })  # fmt: skip
