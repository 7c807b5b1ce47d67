"""The events of one response: typed events with sequence numbers, over SSE or a WebSocket.

Order of a reply: ``response.created``, ``response.in_progress``, ``response.output_item.added``,
``response.content_part.added``, ``response.output_text.delta`` …, ``response.output_text.done``,
``response.content_part.done``, ``response.output_item.done``, and one of ``response.completed``,
``response.incomplete`` and ``response.failed``.

How a response ends, by what voice clients make of it:

- A reply that the server's own limits cut ends ``completed``: clients treat ``incomplete`` as an error. ``incomplete``
  with ``max_output_tokens`` is for a smaller limit of the client's own. Its message is ``incomplete`` as well.
- A reply that ran out of time after its first text ends ``completed`` as well.
- A cancelled reply ends ``incomplete`` with the reason null: a client that cancels waits for an end.

Source: OpenAI's API reference, "Streaming events"; ``openai.types.responses.ResponsesServerEvent``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from inference.openai.chat_frames import error_of, usage_of
from inference.openai.errors import OpenAIError
from inference.openai.responses_requests import Item
from inference.protocol.errors import ErrorCode
from inference.turn_result import EndReason


@dataclass(frozen=True, slots=True)
class EventForm:
    """How one event is written.

    Args:
        named: put a line ``event: TYPE`` in front, as server-sent events have it.
        separator: ends each event.
    """

    named: bool
    separator: str

    def head(self, kind: str) -> str:
        """Return what stands before an event's JSON."""
        return f"event: {kind}\ndata: " if self.named else ""


SSE_EVENTS = EventForm(named=True, separator="\n\n")
SOCKET_EVENTS = EventForm(named=False, separator="\n")
"""Several events of one call are lines; the socket sends each line as one message. JSON has no raw line breaks."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The constant part of a response.

    Args:
        model: the model's name as the client asked for it.
        tools: the client's function tools, flat, echoed.
        tool_choice: echoed.
        max_output_tokens: the client's limit; None where there is none.
        own_limit: whether the client's limit is below the server's, so that a reply of this length is incomplete.
        text_format: the format of the text, echoed.
        stream_id: echoed in every event; None leaves it out.
    """

    model: str
    response_id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))
    previous_response_id: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: object = "auto"
    max_output_tokens: int | None = None
    own_limit: bool = False
    temperature: float | None = None
    top_p: float | None = None
    text_format: Mapping[str, Any] = field(default_factory=lambda: {"type": "text"})
    metadata: Mapping[str, str] = field(default_factory=dict)
    store: bool = True
    stream_id: str | None = None

    def constant_fields(self) -> str:
        """Return the JSON fields that are the same in every state of the response, without braces."""
        fields = {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created_at,
            "background": False,
            "instructions": None,  # the client knows them, and they would travel three times with each response
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata,
            "model": self.model,
            "parallel_tool_calls": True,
            "previous_response_id": self.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": self.store,
            "temperature": self.temperature,
            "text": {"format": self.text_format},
            "tool_choice": self.tool_choice,
            "tools": self.tools,
            "top_p": self.top_p,
            "truncation": "auto",
            "user": None,
        }
        return orjson.dumps(fields, default=dict).decode()[1:-1]


class ResponseFrames:
    """The frames of one response (``inference.turn.FramesOfTurn``). Each method returns whole events, or "".

    Args:
        head: the constant part of the response.
        form: how events are written.
    """

    def __init__(self, head: ResponseHead, form: EventForm) -> None:
        self.head = head
        self.ended: str | None = None
        """The response's last state; None while it runs."""
        self.failure: OpenAIError | None = None
        """Why the response failed, or why the server cancelled it; None otherwise."""
        self._form = form
        self._constant = head.constant_fields()
        self._tail = "}" if head.stream_id is None else f',"stream_id":{_json(head.stream_id)}}}'
        self._tail += form.separator
        self._sequence = 0
        self._pieces: list[str] = []
        self._item_id = f"msg_{uuid.uuid4().hex}"
        self._message_open = False
        self._output: list[dict[str, Any]] = []
        self._response = ""
        self._message_index = 0
        self._delta = ""  # everything of a delta before its text

    # -- what the turn asks ------------------------------------------------------------------------

    def ack(self) -> str:
        """Return ``response.created`` and ``response.in_progress``."""
        response = self._render("in_progress")
        return self._with_response("created", response) + self._with_response("in_progress", response)

    def token(self, text: str) -> str:
        """Return one delta; before the first one, the events that open the message."""
        opening = "" if self._message_open else self._open_message()
        self._pieces.append(text)
        sequence = self._sequence
        self._sequence = sequence + 1
        return f'{opening}{self._delta}{_json(text)},"sequence_number":{sequence}{self._tail}'

    def toolcall(self, calls: Sequence[Mapping[str, Any]], score: float | None = None) -> str:
        """Return the events of function calls; none for a decision of no."""
        return "".join(self._call(call["name"], _json(call["arguments"])) for call in calls)

    def final(self, text: str) -> str:
        """Return the events that close the message; none where no text was sent.

        Where the client's own limit may have cut the reply, :meth:`done` returns them: only its usage tells.
        """
        return "" if self.head.own_limit else self._close_message("completed")

    def error(self, code: str, message: str, **details: Any) -> str:
        """Note why the turn failed; :meth:`done` follows and says so.

        Returns:
            The events that close the message. Behind the last event of a response that the server ended: ``error`` over
            HTTP, and nothing over a WebSocket, which says itself why it closes.
        """
        if self.ended is not None:
            self.failure = error_of(code, message, details)
            fields = {name: value for name, value in self.failure.fields().items() if name != "type"}
            return self._event("error", fields) if self._form.named else ""
        if code == ErrorCode.GENERATION_TIMEOUT and self._pieces:
            return self._close_message("completed")
        self.failure = error_of(code, message, details)
        return self._close_message("incomplete")

    def done(self, usage: Mapping[str, Any] | None = None, *, cancelled: bool = False) -> str:
        """Return the last event."""
        if cancelled:
            return self._end("incomplete", usage, incomplete={"reason": None})
        if self.failure is not None:
            return self._end("failed", usage, error={"code": "server_error", "message": self.failure.message})
        if self.head.own_limit and usage is not None and usage.get("finish_reason") == EndReason.LENGTH:
            return self._end("incomplete", usage, incomplete={"reason": "max_output_tokens"})
        return self._end("completed", usage)

    # -- what the surface asks ---------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The text of all deltas."""
        return "".join(self._pieces)

    @property
    def response(self) -> str:
        """The response's JSON in its last state; empty before the end."""
        return self._response

    def output_items(self) -> tuple[Item, ...]:
        """Return the output as items, for the store."""
        return tuple(
            Item("assistant", self.text)
            if item["type"] == "message"
            else Item("call", item["arguments"], item["call_id"], item["name"])
            for item in self._output
        )

    # -- events ------------------------------------------------------------------------------------

    def _open_message(self) -> str:
        self._message_open, self._message_index = True, len(self._output)
        kind, where = "response.output_text.delta", _json({**self._where(), "logprobs": []})[1:-1]
        self._delta = f'{self._form.head(kind)}{{"type":"{kind}",{where},"delta":'
        item = {**self._message("in_progress"), "content": []}
        return self._event(
            "response.output_item.added", {"output_index": self._message_index, "item": item}
        ) + self._event("response.content_part.added", {**self._where(), "part": _text_part("")})

    def _where(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": self._message_index, "content_index": 0}

    def _close_message(self, status: str) -> str:
        if not self._message_open:
            return ""
        self._message_open = False
        text, where, item = self.text, self._where(), self._message(status)
        self._output.append(item)
        return (
            self._event("response.output_text.done", {**where, "text": text, "logprobs": []})
            + self._event("response.content_part.done", {**where, "part": _text_part(text)})
            + self._event("response.output_item.done", {"output_index": self._message_index, "item": item})
        )

    def _message(self, status: str) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [_text_part(self.text)],
        }

    def _call(self, name: str, arguments: str) -> str:
        item_id, index = f"fc_{uuid.uuid4().hex}", len(self._output)
        item = {
            "id": item_id,
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{uuid.uuid4().hex}",
            "name": name,
            "arguments": arguments,
        }
        self._output.append(item)
        where = {"item_id": item_id, "output_index": index}
        begun = {**item, "status": "in_progress", "arguments": ""}
        return (
            self._event("response.output_item.added", {"output_index": index, "item": begun})
            + self._event("response.function_call_arguments.delta", {**where, "delta": arguments})
            + self._event("response.function_call_arguments.done", {**where, "name": name, "arguments": arguments})
            + self._event("response.output_item.done", {"output_index": index, "item": item})
        )

    def _end(
        self,
        status: str,
        usage: Mapping[str, Any] | None,
        *,
        error: Mapping[str, Any] | None = None,
        incomplete: Mapping[str, Any] | None = None,
    ) -> str:
        closing = self._close_message("completed" if status == "completed" else "incomplete")
        called = any(item["type"] == "function_call" for item in self._output)
        self.ended = status
        self._response = self._render(status, usage=_usage(usage, called=called), error=error, incomplete=incomplete)
        return closing + self._with_response(status, self._response)

    def _render(
        self,
        status: str,
        *,
        usage: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        incomplete: Mapping[str, Any] | None = None,
    ) -> str:
        state = {
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "output": self._output,
            "usage": usage,
            "error": error,
            "incomplete_details": incomplete,
        }
        return f"{{{self._constant},{_json(state)[1:]}"

    def _with_response(self, state: str, response: str) -> str:
        kind, sequence = f"response.{state}", self._sequence
        self._sequence += 1
        return (
            f'{self._form.head(kind)}{{"type":"{kind}","response":{response},"sequence_number":{sequence}{self._tail}'
        )

    def _event(self, kind: str, fields: Mapping[str, Any]) -> str:
        sequence = self._sequence
        self._sequence += 1
        return (
            f'{self._form.head(kind)}{{"type":"{kind}",{_json(fields)[1:-1]},"sequence_number":{sequence}{self._tail}'
        )


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Mapping[str, Any] | None, *, called: bool) -> dict[str, Any] | None:
    """Return a turn's usage in OpenAI's names. LiveKit refuses a usage without ``cache_write_tokens``."""
    if usage is None:
        return None
    chat = usage_of(usage, called=called)
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": chat["prompt_tokens_details"],
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": chat["completion_tokens_details"],
        "total_tokens": chat["total_tokens"],
    }


def _json(value: object) -> str:
    return orjson.dumps(value, default=dict).decode()


def error_event(error: OpenAIError, stream_id: str | None = None) -> str:
    """Return the WebSocket's answer to a request that got no response."""
    fields = error.fields()
    if headers := error.headers():
        fields["headers"] = {name.decode(): value.decode() for name, value in headers}
    event = {"type": "error", "status": error.status, "error": fields}
    if stream_id is not None:
        event["stream_id"] = stream_id
    return _json(event) + SOCKET_EVENTS.separator
