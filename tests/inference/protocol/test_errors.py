"""Every error code there is, provoked as a client would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from accounts.callers import Caller, Limits, Window
from accounts.connection_slots import MemoryConnectionSlots
from inference.admission import Admission
from inference.engines.base import EngineRole
from inference.engines.sampling import SAMPLING_KEYS
from inference.protocol.errors import ALL_ERROR_CODES, ErrorCode
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import FREE, START, UNLIMITED, Line, make_serving, talking
from tests.fakes.socket import Socket, chat_application

Frame = dict[str, Any]
Provoke = Callable[[], Awaitable[Frame]]

# As the protocol lists them.
DOCUMENTED = {
    *["authentication_failed", "server_at_capacity", "server_not_ready", "server_draining"],
    *["invalid_message", "unknown_message_type", "missing_session_id", "missing_gender", "invalid_gender"],
    *["missing_personality", "invalid_personality", "missing_chat_prompt", "invalid_chat_prompt"],
    "chat_prompt_too_long",
    *["missing_tool_prompt", "invalid_tool_prompt", "tool_prompt_too_long", "tool_prompt_update_not_allowed"],
    *[
        "unknown_persona",
        "invalid_user_utterance",
        "invalid_user_identity",
        "missing_analysis_text",
        "invalid_history",
        "no_active_session",
        "unknown_session",
    ],
    *["chat_not_deployed", "invalid_sampling_payload", "message_rate_limited", "cancel_rate_limited"],
    *["chat_prompt_update_rate_limited", "generation_timeout", "engine_unavailable", "key_revoked"],
    *["token_budget_exhausted", "internal_error", "invalid_user_identity"],
    *(f"invalid_{key}" for key in SAMPLING_KEYS),
    *(f"{key}_out_of_range" for key in SAMPLING_KEYS),
}


def limited(**limits: Any) -> Caller:
    own = {"messages": FREE, "cancels": FREE, "persona_updates": FREE, **limits}
    return replace(UNLIMITED, limits=Limits(**own))


def said(*messages: dict[str, Any] | str, **options: Any) -> Provoke:
    """The last frame after these messages of one connection."""

    async def provoke() -> Frame:
        async with talking(FakeEngine(), FakeEngine(EngineRole.TOOL, lambda _: "[]"), **options) as line:
            for message in messages:
                await line.say(message)
                await settled(line)
            return line.frames[-1]

    return provoke


def start(**fields: Any) -> Provoke:
    return said({**START, **fields})


def connecting(key: str = "good", **changes: Any) -> Provoke:
    """The one frame that a refused connection gets."""

    async def provoke() -> Frame:
        serving = await make_serving(FakeEngine(), None)
        for name, value in changes.items():
            if name != "slots":
                setattr(serving, name, value)

        async def find(presented: str, network: str) -> Caller | None:
            return UNLIMITED if presented == "good" else None

        admission = Admission(find, MemoryConnectionSlots(changes.get("slots", 1)), 0.0, 1008, 1013)
        socket = Socket(chat_application(serving, admission), f"api_key={key}")
        await socket.connect()
        await socket.ended()
        await serving.engines.aclose()
        assert len(socket.frames) == 1
        assert socket.closed is not None
        return socket.frames[0]

    return provoke


async def settled(line: Line) -> None:
    if line.session.running:
        await line.until(lambda frames: not line.session.running)


async def unsaid() -> Frame:
    """A chat message where only the tool engine is deployed."""
    async with talking(None, FakeEngine(EngineRole.TOOL, lambda _: "[]")) as line:
        await line.turn()
        for kind in ("chat_prompt", "warm_persona", "warm_history"):
            frame = await line.ask({"type": kind, "gender": "male", "chat_prompt": "x", "history_text": ""})
            assert frame["error_code"] == "chat_not_deployed"
        return await line.ask({"type": "followup", "analysis_text": "a"})


async def too_slow() -> Frame:
    async with talking(FakeEngine(first=asyncio.Event()), turn=TurnPolicy(reply_timeout_s=0.02)) as line:
        return (await line.turn())[-2]


async def dead() -> Frame:
    chat = FakeEngine(first=asyncio.Event())
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        chat.die()
        return (await line.until_done())[-2]


async def revoked() -> Frame:
    async with talking() as line:
        await line.session.revoke()
        return line.frames[-1]


async def broken() -> Frame:
    async with talking() as line:
        line.serving.resolver.choose = None  # type: ignore[method-assign, assignment]
        return await line.ask(START)


LONG = "word " * 6000
ONE = Window(1, 60)
PROVOKED: dict[str, Provoke] = {
    "authentication_failed": connecting("wrong"),
    "server_at_capacity": connecting(slots=0),
    "server_not_ready": connecting(started=False),
    "server_draining": connecting(draining=True),
    "invalid_message": said("hello"),
    "unknown_message_type": said({"type": "dance"}),
    "missing_session_id": start(session_id=None),
    "missing_gender": start(gender=None),
    "invalid_gender": start(gender="x"),
    "missing_personality": start(personality=None),
    "invalid_personality": start(personality="4"),
    "missing_chat_prompt": start(personality="unheard"),
    "invalid_chat_prompt": start(chat_prompt=5),
    "chat_prompt_too_long": start(chat_prompt=LONG),
    "missing_tool_prompt": start(tool_prompt=""),
    "invalid_tool_prompt": start(tool_prompt=5),
    "tool_prompt_too_long": start(tool_prompt=LONG),
    "tool_prompt_update_not_allowed": said(START, {"type": "chat_prompt", "persona": "max", "tool_prompt": "x"}),
    "unknown_persona": start(persona="nobody"),
    "invalid_user_utterance": start(user_utterance=5),
    "missing_analysis_text": said(START, {"type": "followup"}),
    "invalid_history": start(history_text="nobody said this"),
    "invalid_user_identity": start(user_identity="x" * 65),
    "unknown_session": said({"type": "resume", "session_id": "s1", "turn": 1, "received": 0}),
    "no_active_session": said({"type": "chat_prompt", "persona": "max"}),
    "chat_not_deployed": unsaid,
    "invalid_sampling_payload": start(sampling=5),
    "message_rate_limited": said(START, START, caller=limited(messages=ONE)),
    "cancel_rate_limited": said("__CANCEL__", "__CANCEL__", caller=limited(cancels=ONE)),
    "chat_prompt_update_rate_limited": said(
        START,
        {"type": "chat_prompt", "persona": "max"},
        {"type": "chat_prompt", "persona": "anna"},
        caller=limited(persona_updates=ONE),
    ),
    "generation_timeout": too_slow,
    "engine_unavailable": dead,
    "key_revoked": revoked,
    "token_budget_exhausted": said(START, START, caller=limited(tokens_per_day=1)),
    "internal_error": broken,
    **{f"invalid_{key}": start(sampling={key: "much"}) for key in SAMPLING_KEYS},
    **{f"{key}_out_of_range": start(**{key: 1000}) for key in SAMPLING_KEYS},
}


def test_every_code_is_documented_and_provoked() -> None:
    assert set(ALL_ERROR_CODES) == DOCUMENTED == set(PROVOKED)
    assert len(ALL_ERROR_CODES) == len(DOCUMENTED)
    assert set(ErrorCode) <= DOCUMENTED


@pytest.mark.parametrize("code", sorted(PROVOKED))
async def test_a_client_can_meet_it(code: str) -> None:
    frame = await PROVOKED[code]()
    assert frame["error_code"] == code
    assert frame["type"] == ("ack" if frame.get("for") == "chat_prompt" else "error")
    assert frame["message"]
    assert "Traceback" not in json.dumps(frame)
    waits = code.endswith(("_rate_limited", "_exhausted", "_not_ready", "_draining"))
    assert isinstance(frame.get("retry_in"), int) is waits
    assert not waits or frame["retry_in"] >= 1
    assert ("capacity" in frame) is (code == "server_at_capacity")
