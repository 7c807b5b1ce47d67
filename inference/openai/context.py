"""The parts of the OpenAI surface that all requests of a process share, and the admission of a request."""

from __future__ import annotations

from dataclasses import dataclass, field

from accounts.callers import Caller
from accounts.connection_slots import ConnectionSlot
from inference.admission import Admission, check_ready
from inference.openai.callers import ENCODINGS, REFUSED, CallerCache, KeyWindows
from inference.openai.cross_origin import CrossOrigin
from inference.openai.errors import own_slots_taken
from inference.openai.extra_phrases import ExtraPhrases
from inference.openai.models import Models
from inference.openai.prompts import PromptFormats
from inference.openai.records import RecordStore
from inference.openai.response_copies import ResponseCopies
from inference.openai.response_lane import WaitingCharacters
from inference.openai.responses_store import ResponseStore
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.serving_context import ServingContext
from inference.session_registry import SessionRegistry
from inference.turn_admission import check_admission, require_chat_engine

MAX_RESPONSES = 4000
MAX_RESPONSE_CHARS = 32 * 1024 * 1024
"""Characters of all stored responses; a character takes one to four bytes."""


@dataclass(slots=True)
class OpenAIContext:
    """The shared parts. The composition root makes one.

    Args:
        serving: engines, personas, budgets, policy.
        admission: checks keys and hands out slots.
        registry: running responses are entered here, so that revocation, drain and metrics see them.
        records: histories with their token ids.
        default_model: the persona that answers unknown model names; empty for none.
        copies: copies of stored responses for other processes; None where there are no others.
        cross_origin: web pages of other origins that may use the surface.
    """

    serving: ServingContext
    admission: Admission
    registry: SessionRegistry
    records: RecordStore
    default_model: str = ""
    copies: ResponseCopies | None = None
    cross_origin: CrossOrigin = field(default_factory=CrossOrigin)
    callers: CallerCache = field(init=False)
    windows: KeyWindows = field(default_factory=KeyWindows)
    refused: KeyWindows = field(default_factory=lambda: KeyWindows(REFUSED))
    encodings: KeyWindows = field(default_factory=lambda: KeyWindows(ENCODINGS))
    models: Models = field(init=False)
    responses: ResponseStore = field(default_factory=lambda: ResponseStore(MAX_RESPONSES, MAX_RESPONSE_CHARS))
    waiting: WaitingCharacters = field(default_factory=WaitingCharacters)
    phrases: ExtraPhrases = field(default_factory=ExtraPhrases)
    formats: PromptFormats = field(default_factory=PromptFormats)

    def __post_init__(self) -> None:
        self.callers = CallerCache(self.serving, self.admission)
        self.models = Models(self.serving, self.default_model)

    async def authenticate(self, key: str | None, address: str) -> Caller:
        """Return the caller of a request's key, once the server is ready.

        Raises:
            ProtocolError: ``authentication_failed``, ``server_not_ready`` or ``server_draining``.
        """
        caller = await self.callers.find(key, address)
        if caller.operator_id is not None:  # a "Try it" ticket opens WebSockets of /ws alone
            raise ProtocolError(ErrorCode.AUTHENTICATION_FAILED, "a ticket is no API key")
        check_ready(self.serving)
        return caller

    async def admit(self, caller: Caller) -> None:
        """Charge the key's message window and check its token budget, before a request is decoded.

        Raises:
            ProtocolError: ``message_rate_limited``, ``token_budget_exhausted``, ``server_draining`` or
                ``chat_not_deployed``.
            EngineDead: the chat engine is being replaced.
        """
        self.windows.charge(caller)
        await check_admission(self.serving, caller)
        require_chat_engine(self.serving)

    async def take_slot(self, caller: Caller) -> ConnectionSlot:
        """Return a slot for one running response; wait at most as long as a connection does.

        Raises:
            ProtocolError: ``server_at_capacity``.
            OpenAIError: the key's own slots are taken.
        """
        try:
            slot = await self.admission.take_slot(caller)
        except ProtocolError as error:
            own = caller.limits.connections
            if error.code == ErrorCode.SERVER_AT_CAPACITY and own == error.details["capacity"]["max"]:
                raise own_slots_taken() from None
            raise
        try:
            check_ready(self.serving)  # waiting may have taken a while
        except ProtocolError:
            slot.release()
            raise
        return slot
