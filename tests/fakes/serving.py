"""A server's inside without a server: sessions over fake engines, frames in a list."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from accounts.callers import Caller, Limits, Window
from accounts.token_budget import MemoryTokenBudget
from accounts.usage import UsageBatch, UsageLedger
from inference.engines.base import EngineRole
from inference.engines.sampling import SAMPLING_KEYS, Sampling, SamplingRules
from inference.engines.service import EngineService
from inference.engines.spec import EngineSpec
from inference.metrics import Metrics
from inference.phrases.compiled import PhraseStore
from inference.prompting.chat_template import ChatFormat
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.persona_resolver import PersonaResolver
from inference.prompting.prompt_limits import PromptLimits
from inference.protocol.decoder import Decoder
from inference.resumable_sessions import ResumableSessions
from inference.serving_context import ServingContext, SessionPolicy
from inference.session import Session
from inference.turn_plan import TurnPolicy
from personas.snapshot import Catalogue, PersonaSnapshot, PhraseRule
from tests.fakes.engine import FakeEngine

RANGES = {
    "temperature": (0.2, 1.2),
    "top_p": (0.6, 1.0),
    "top_k": (10, 60),
    "min_p": (0.0, 0.20),
    "repeat_penalty": (1.0, 1.3),
    "presence_penalty": (0.0, 0.15),
    "frequency_penalty": (0.0, 0.15),
}
RULES = SamplingRules(Sampling(), RANGES)
assert set(RANGES) == set(SAMPLING_KEYS)

FREE = Window(0, 0.0)
UNLIMITED = Caller(
    key_id=None, prefix="test", name="test", limits=Limits(messages=FREE, cancels=FREE, persona_updates=FREE)
)
ANNA = PersonaSnapshot("anna", "Anna", "female", "calm", "You are Anna, calm and kind.")
MAX = PersonaSnapshot("max", "Max", "male", "dry", "You are Max, dry and short.")
START = {"type": "start", "session_id": "s1", "gender": "female", "personality": "calm", "user_utterance": "hi"}


def catalogue(*personas: PersonaSnapshot, phrases: tuple[PhraseRule, ...] = (), version: int = 1) -> Catalogue:
    """A catalogue of these personas, or of Anna and Max."""
    return Catalogue({p.slug: p for p in personas or (ANNA, MAX)}, phrases, version)


async def write_nothing(batch: UsageBatch) -> None:
    """A database that takes everything."""


async def make_serving(
    chat: FakeEngine | None,
    tool: FakeEngine | None,
    *,
    catalogue: Catalogue | None = None,
    policy: SessionPolicy | None = None,
    limits: PromptLimits | None = None,
    clock: Callable[[], float] | None = None,
) -> ServingContext:
    """Everything sessions share, around running fake engines."""
    engines: dict[EngineRole, FakeEngine] = {}
    if chat is not None:
        engines[EngineRole.CHAT] = chat
    if tool is not None:
        engines[EngineRole.TOOL] = tool
    specs = [EngineSpec(role, "fake", 4096) for role in engines]
    service = EngineService(specs, lambda spec: engines[spec.role])
    pace = {role: (engine.first, engine.step, engine.reply) for role, engine in engines.items()}
    for engine in engines.values():  # no test holds back the warming
        engine.first, engine.step, engine.reply = None, None, "ok"
    await service.ensure_running()
    for role, engine in engines.items():
        engine.first, engine.step, engine.reply = pace[role]
        engine.requests.clear()
        engine.finished.clear()
    formats = {role: ChatFormat(engine.tokenizer) for role, engine in engines.items()}
    form = formats.get(EngineRole.CHAT)
    resolver = PersonaResolver(
        PersonaEncoder(form, formats.get(EngineRole.TOOL), limits or PromptLimits()), PhraseStore(form)
    )
    found = catalogue if catalogue is not None else globals()["catalogue"]()
    resolver.phrases.install(resolver.phrases.compile(found))

    async def nothing_used(_prefix: str, _now: float) -> int:
        return 0

    return ServingContext(
        engines=service,
        resolver=resolver,
        decoder=Decoder(RULES),
        sampling=RULES,
        policy=policy or SessionPolicy(turn=TurnPolicy()),
        ledger=UsageLedger(write_nothing),
        budget=MemoryTokenBudget(nothing_used),
        metrics=Metrics(),
        started=True,
    )


class Line:
    """One connection, without its socket: frames as dicts, and the close code when there is one."""

    def __init__(
        self,
        serving: ServingContext,
        caller: Caller = UNLIMITED,
        patience: float = 5,
        resumable: ResumableSessions | None = None,
    ) -> None:
        self.patience = patience  # seconds
        self.frames: list[dict[str, Any]] = []
        self.closed: int | None = None
        self._arrived = asyncio.Condition()
        self.serving = serving
        self.resumable = ResumableSessions() if resumable is None else resumable
        self.send: Callable[[str], Awaitable[None]] = self._receive  # a test may put another function here
        self.session = Session(serving, caller, lambda text: self.send(text), self._close, self.resumable)

    async def _receive(self, text: str) -> None:
        self.frames.append(json.loads(text))
        async with self._arrived:
            self._arrived.notify_all()

    async def _close(self, code: int) -> None:
        self.closed = code
        async with self._arrived:
            self._arrived.notify_all()

    async def say(self, message: dict[str, Any] | str) -> None:
        """One frame from the client."""
        await self.session.receive(message if isinstance(message, str) else json.dumps(message))

    async def until(self, seen: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """All frames, as soon as they satisfy ``seen``."""
        async with asyncio.timeout(self.patience):
            async with self._arrived:
                await self._arrived.wait_for(lambda: seen(self.frames))
        return self.frames

    async def until_done(self, count: int = 1) -> list[dict[str, Any]]:
        """All frames, as soon as there are ``count`` ``done`` frames."""
        return await self.until(lambda frames: sum(f["type"] == "done" for f in frames) >= count)

    async def ask(self, message: dict[str, Any] | str) -> dict[str, Any]:
        """The next frame after a message."""
        before = len(self.frames)
        await self.say(message)
        return (await self.until(lambda frames: len(frames) > before))[before]

    async def turn(self, **fields: Any) -> list[dict[str, Any]]:
        """A whole turn: its frames alone."""
        before = len(self.frames)
        dones = sum(f["type"] == "done" for f in self.frames)
        await self.say({**START, **fields})
        await self.until_done(dones + 1)
        return self.frames[before:]

    def text(self) -> str:
        """All token texts together."""
        return "".join(f["text"] for f in self.frames if f["type"] == "token")

    def types(self) -> list[str]:
        """The types of all frames, runs of tokens as one."""
        types = [f["type"] for f in self.frames]
        return [t for n, t in enumerate(types) if n == 0 or t != "token" or types[n - 1] != "token"]


_ORDER = re.compile(r"(ack )?(toolcall )?(token )*(final |error )?done")


def check_order(frames: list[dict[str, Any]]) -> None:
    """Every turn in its order, with exactly one ``done`` and nothing behind it, one turn after the other."""
    ended: set[int] = set()
    turns: dict[int, list[dict[str, Any]]] = {}
    for frame in frames:
        if "turn" in frame:
            number = frame["turn"]
            assert number not in ended, f"{frame} after the turn's done"
            assert number == max(turns, default=0) or set(turns) == ended, f"{frame} while another turn runs"
            turns.setdefault(number, []).append(frame)
            if frame["type"] == "done":
                ended.add(number)
    assert sorted(turns) == list(turns)
    for number, own in turns.items():
        types = " ".join(frame["type"] for frame in own)
        assert number not in ended or _ORDER.fullmatch(types), types
        assert len({frame.get("request_id") for frame in own}) == 1
        finals = [frame["normalized_text"] for frame in own if frame["type"] == "final"]
        assert finals in ([], ["".join(frame["text"] for frame in own if frame["type"] == "token")])


@asynccontextmanager
async def talking(
    chat: FakeEngine | None = None,
    tool: FakeEngine | None = None,
    *,
    caller: Caller = UNLIMITED,
    turn: TurnPolicy | None = None,
    resumable: ResumableSessions | None = None,
    **options: Any,
) -> AsyncIterator[Line]:
    """A connection to a server with these engines (a chat engine where none is named)."""
    policy = options.pop("policy", None) or SessionPolicy(turn=turn or TurnPolicy())
    if turn is not None:
        policy = replace(policy, turn=turn)
    if chat is None and tool is None:
        chat = FakeEngine()
    serving = await make_serving(chat, tool, policy=policy, **options)
    line = Line(serving, caller, resumable=resumable)
    line.session.open()
    try:
        yield line
        check_order(line.frames)
    finally:
        await line.session.aclose()
        await line.resumable.aclose()
        await serving.engines.aclose()
