"""One response: an entry of the session registry around one turn. Both surfaces, HTTP and WebSocket, use it.

surface                      Generation                      turn runner
opened_generation() -------> slot taken, registered
prepare(ask) --------------> persona, record, prompt; errors before anything was sent
run(frames) ---------------> budget reserved ---------------> turn (frames)
                             record kept, usage accounted <-- result
(end of the block) --------> unregistered, slot released, turn aborted where it still runs
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from accounts.callers import Caller
from inference.accounting import account, account_warm_up
from inference.openai.context import OpenAIContext
from inference.openai.models import Model
from inference.openai.prompts import encode_end, encode_whole, resolve_persona
from inference.openai.records import Record, RecordOwner, prompt_hash
from inference.openai.request_tools import without_phrases
from inference.openai.requests import Ask
from inference.openai.responses_store import owner_of
from inference.openai.tool_question import ToolQuestion, permitted, with_short_tools
from inference.phrases.automaton import PhraseAutomaton
from inference.phrases.stops import text_stops
from inference.prefix_cache import prime
from inference.prompting.conversation import Conversation
from inference.prompting.history import ExchangeText
from inference.prompting.persona import PersonaError
from inference.protocol.errors import ErrorCode, ProtocolError, persona_refused
from inference.serving_context import RETRY_IN_S
from inference.turn_admission import DeployedEngines, budget_exhausted, engines_for_start
from inference.turn_budget import TurnBudget
from inference.turn_frames import FramesOfTurn
from inference.turn_line import FrameSender
from inference.turn_plan import ChatPlan, ChatRequest, ToolPlan, TurnPlan
from inference.turn_planner import TurnPlanner
from inference.turn_result import EncodedUtterance, StopReason, TurnResult
from inference.turn_runner import TurnRunner
from personas.snapshot import PersonaSnapshot

logger = logging.getLogger("yap.openai")

TAIL_CHARS = 2000
"""The end of a continued text that the phrase guard reads: longer than the longest phrase that a list holds."""


@asynccontextmanager
async def opened_generation(
    context: OpenAIContext, caller: Caller, send: FrameSender, *, within_connection: bool = False
) -> AsyncIterator[Generation]:
    """Take a slot and register one response; give both back at the end of the block.

    Args:
        context: the shared parts of the surface.
        caller: the key.
        send: sends one frame.
        within_connection: whether the response belongs to a connection that is registered itself.

    Raises:
        ProtocolError: no slot, or the server is no longer ready.
        OpenAIError: the key's own slots are taken.
    """
    slot = await context.take_slot(caller)
    generation = Generation(context, caller, send)
    generation.within_connection = within_connection
    context.registry.add(generation)
    try:
        yield generation
    finally:
        context.registry.remove(generation)
        slot.release()
        await generation.abort()


class Generation:
    """One response. Call :meth:`prepare`, then :meth:`run`.

    Args:
        context: the shared parts of the surface.
        caller: the key.
        send: sends one frame.

    Attributes:
        record: the history after the response; None before its end, and where nothing was said.
    """

    def __init__(self, context: OpenAIContext, caller: Caller, send: FrameSender) -> None:
        self.caller = caller
        self.connection = uuid.uuid4().hex[:12]
        self.cache_salt = context.serving.policy.cache_salt(caller)
        self.record: Record | None = None
        self.within_connection = False
        self._context = context
        self._send = send
        self._model: Model | None = None
        self._budget = TurnBudget(context.serving)
        self._plan: TurnPlan | None = None
        self._runner: TurnRunner | None = None
        self._result: TurnResult | None = None
        self._refusal: ProtocolError | None = None
        self._automaton = PhraseAutomaton(())
        # Of the history: where the record is kept, what was said before, and the beginning of the reply.
        self._owner: RecordOwner | None = None
        self._conversation: Conversation | None = None
        self._exchanges: tuple[ExchangeText, ...] = ()
        self._prefill: tuple[str, list[int]] = "", []
        self._whole_prompt: list[int] = []
        self._affinity = ""

    # -- registry.LiveSession ----------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the turn runs now."""
        return self._runner is not None and self._runner.running

    @property
    def snapshot(self) -> PersonaSnapshot | None:
        """The stored persona that answers; None for the bare chat model."""
        return self._model.persona if self._model else None

    def apply_caller(self, caller: Caller) -> None:
        """Store changed rights and limits. They govern the key's next request."""
        self.caller = caller

    async def revoke(self) -> None:
        """End the response: the key is revoked or expired."""
        message = "this API key was revoked or has expired"
        await self._end(ProtocolError(ErrorCode.KEY_REVOKED, message), StopReason.REVOKED)

    async def drain(self, timeout_s: float) -> None:
        """Let the response end; cancel it after ``timeout_s`` seconds."""
        if self._runner is not None:
            await self._runner.wait(timeout_s)
        message = "the server is stopping"
        refusal = ProtocolError(ErrorCode.SERVER_DRAINING, message, retry_in=RETRY_IN_S)
        await self._end(refusal, StopReason.DRAIN)

    async def _end(self, refusal: ProtocolError, reason: StopReason) -> None:
        self._refusal = refusal
        if self._runner is not None:
            await self._runner.stop(reason)

    async def stop(self, reason: StopReason) -> None:
        """Cancel the running turn; its last frame says so. Does nothing where none runs."""
        if self._runner is not None:
            await self._runner.stop(reason)

    # -- the response ------------------------------------------------------------------------------

    async def prepare(self, model: Model, ask: Ask, record: Record | None = None) -> None:
        """Resolve the persona and plan the turn. Nothing was sent before this call.

        Args:
            model: who answers.
            ask: the request.
            record: the history that the request continues; None: the history is found by its content.

        Raises:
            OpenAIError: the request exceeds the context.
            ProtocolError: the persona or the tools cannot be used.
            EngineDead: the chat engine is being replaced.
        """
        context, self._model = self._context, model
        serving = context.serving
        ask = permitted(ask, model, self.caller)
        engines = engines_for_start(serving)
        by_tool_engine = engines.tool is not None
        ask = await with_short_tools(ask, serving.resolver.encoder, by_tool_engine=by_tool_engine)
        try:
            persona = await resolve_persona(serving.resolver, model, ask, self.caller, by_tool_engine=by_tool_engine)
        except PersonaError as error:
            raise persona_refused(error) from None
        encoder = context.formats.encoder(serving.resolver.encoder, ask_tool=ask.has_tools)
        caller, system = self.caller, ask.prompt.system
        self._owner = RecordOwner(owner_of(caller), model.id, prompt_hash(self.cache_salt, system, ask.has_tools))
        self._exchanges = ask.prompt.exchanges
        found = record or context.records.find(self._owner, self._exchanges)
        conversation = self._conversation = found.conversation.copy() if found else Conversation(encoder)
        self._affinity = found.affinity if found else self.connection
        if ask.raw:
            self._conversation, text = None, ask.prompt.user or ""
            self._whole_prompt = await encode_whole(encoder, text)
            utterance, self._prefill = EncodedUtterance(text, ()), (text, [])
        else:
            await conversation.replace(self._exchanges)
            utterance, prefill_ids = await encode_end(encoder, conversation, persona, ask)
            self._prefill = ask.prompt.prefill or "", prefill_ids
        phrases = await context.phrases.added(persona.phrases, serving.resolver.phrases, ask.sampling, engines.chat)
        self._automaton = phrases.automaton
        plan = TurnPlanner(serving, self.connection, self.cache_salt).plan(
            1,
            None,
            None,
            encoded=utterance,
            engines=DeployedEngines(engines.chat, engines.tool, asks_tool=ask.decides),
            persona=persona if phrases is persona.phrases else replace(persona, phrases=phrases),
            conversation=conversation,
            sampling=ask.sampling.overrides,
            max_out=self._max_out(ask.sampling.max_tokens),
        )
        policy = serving.policy.turn.tool
        question = ToolQuestion(ask, persona, conversation, utterance, engines, policy, self.cache_salt, self._affinity)
        self._plan = self._with_request(plan, question.plan(plan.tool), ask)

    def _max_out(self, asked: int | None) -> int:
        most = self._context.serving.policy.max_out
        return min(most, self.caller.limits.max_out or most, asked or most)

    def _with_request(self, plan: TurnPlan, tool: ToolPlan | None, ask: Ask) -> TurnPlan:
        """Return a plan with what only this surface knows: tools, stops, a beginning of the reply, a schema."""
        chat = plan.chat
        assert chat is not None
        prefill, prefill_ids = self._prefill
        special = prefill or ask.raw or ask.json_schema or ask.sampling.stop or self._affinity != chat.reply.affinity
        if tool is None and not special:
            return plan
        free = ask.json_schema is None and not ask.raw  # a reply of one speaker, without the label of another
        matchers = chat.reply.matchers if free else ()
        if ask.sampling.stop and ask.json_schema is None:
            matchers = (*matchers, text_stops(ask.sampling.stop))
        reply = replace(
            chat.reply,
            matchers=matchers,
            before=prefill[-TAIL_CHARS:],
            json_schema=ask.json_schema,
            affinity=self._affinity,
        )
        prompt_ids = self._whole_prompt or [*chat.request.prompt_ids, *prefill_ids]
        request = ChatRequest(chat.request.utterance, prompt_ids)
        style = chat.output_style if ask.json_schema is None else "raw"
        changed: ChatPlan = replace(chat, request=request, reply=reply, output_style=style, request_after_yes=None)
        return replace(plan, tool=tool, chat=changed)

    async def run(self, frames: FramesOfTurn, ack: Callable[[], str] | None = None) -> TurnResult | None:
        """Run the turn to its last frame.

        Args:
            frames: encodes the frames in the client's protocol.
            ack: makes the first frame, which is sent while the engines work already; None for none.

        Returns:
            The result; None where the response was ended before the turn began.

        Raises:
            ProtocolError: ``token_budget_exhausted``.
        """
        plan, serving = self._plan, self._context.serving
        assert plan is not None
        guarded = _GuardedCalls(frames, self._automaton)
        if self._refusal is None:
            await self.reserve()
            policy = serving.policy.turn
            if plan.tool is not None and plan.tool.request is not None and plan.tool.request.wanted:
                policy = replace(policy, concurrent=False)
            self._runner = TurnRunner(policy, serving.metrics, self._send, self._on_result)
            turn = self._runner.start(plan, guarded, ack)
            if turn is not None and ack is not None:
                # The task's first step, or that of the tasks it creates, submits the engine requests.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await turn.line.acknowledge()
            await self._runner.wait()
        if self._refusal is not None and (self._result is None or self._result.stop_reason is not None):
            error = self._refusal
            if frame := frames.error(error.code, error.message, **error.details):
                await self._send(frame)
        return self._result

    async def reserve(self) -> None:
        """Reserve the turn's tokens, once. A surface that has to answer with a status calls this before the head.

        Raises:
            ProtocolError: ``token_budget_exhausted``.
        """
        assert self._plan is not None
        if not self._budget.reserved:
            await self._budget.reserve(self.caller, self._plan)

    async def warm(self) -> int:
        """Compute the prompt into the prefix cache in place of a turn, and charge it. Returns the prompt's tokens.

        Raises:
            ProtocolError: ``token_budget_exhausted``.
            EngineDead: the engine died.
        """
        assert self._plan is not None
        chat, serving = self._plan.chat, self._context.serving
        assert chat is not None
        ids = chat.request.prompt_ids
        reservation = await serving.budget.reserve(self.caller, len(ids))
        if reservation is None:
            raise budget_exhausted(serving)
        try:
            account_warm_up(serving, self.caller, self._plan.persona_slug, len(ids), reservation)
            await prime(chat.engine, ids, self.cache_salt, self._affinity)
        finally:
            reservation.settle(0)  # does nothing where the request was accounted
        return len(ids)

    async def abort(self) -> None:
        """Abort the turn without another frame: the client is gone, or the response is over."""
        if self._runner is not None:
            await self._runner.abort()
        self._budget.settle_unused()

    def _on_result(self, result: TurnResult) -> None:
        """Account the ended turn and keep its record."""
        self._result = result
        name = f"key={self.caller.prefix} conn={self.connection} session=openai"
        account(self._context.serving, self.caller, result, self._budget.take(), session_name=name)
        conversation, (prefill, prefill_ids) = self._conversation, self._prefill
        if conversation is None or self._owner is None or not result.delivered:
            # Nothing to continue; after calls alone the client repeats the user's text.
            return
        whole = replace(result, delivered=prefill + result.delivered, reply_ids=[*prefill_ids, *result.reply_ids])
        conversation.append(whole)
        exchanges = (*self._exchanges, ExchangeText(result.utterance.text, whole.delivered))
        self.record = Record(conversation, exchanges, self._affinity)
        self._context.records.keep(self._owner, self.record)


class _GuardedCalls:
    """Frames whose tool calls hold no banned phrase: an exit like every other."""

    def __init__(self, frames: FramesOfTurn, automaton: PhraseAutomaton) -> None:
        self._frames = frames
        self._automaton = automaton
        self.token, self.final, self.error, self.done = frames.token, frames.final, frames.error, frames.done

    def toolcall(self, calls: list[dict[str, Any]], score: float | None = None) -> str:
        """See :class:`inference.turn_frames.FramesOfTurn`."""
        clean = [{**call, "arguments": without_phrases(call["arguments"], self._automaton)} for call in calls]
        return self._frames.toolcall(clean, score)
