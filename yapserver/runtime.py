"""The composition root's one object: everything a serving process is made of, put together from the environment.

Made once, when the ASGI module is imported; the parts that belong to an event loop start with the first scope.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from django.db import close_old_connections

from accounts import changes as key_changes
from accounts.authentication import authenticate
from accounts.callers import Caller
from accounts.connection_slots import ConnectionSlots, MemoryConnectionSlots
from accounts.database_threads import DatabaseThreads, database_breaker
from accounts.defaults import default_limits
from accounts.redis_connection import SharedRedis
from accounts.redis_connection_slots import RedisConnectionSlots
from accounts.redis_token_budget import RedisTokenBudget
from accounts.selectors import caller_for_sync, tokens_today
from accounts.token_budget import MemoryTokenBudget, TokenBudget
from accounts.usage import UsageLedger
from accounts.usage_services import write_usage
from inference.config_watcher import ConfigSource, ConfigWatcher
from inference.consumer import Admission
from inference.engines.base import Engine, EngineDead, EngineRole
from inference.engines.sampling import SAMPLING_KEYS, Sampling, SamplingRules
from inference.engines.service import EngineService
from inference.http.views import ServerStatus
from inference.metrics import Metrics
from inference.phrases.compiled import MAX_BIASED_TOKENS, PhraseStore, token_biases
from inference.prompting.chat_template import ChatFormat
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.persona_resolver import PersonaResolver
from inference.prompting.prompt_limits import PromptLimits
from inference.protocol.decoder import Decoder
from inference.serving_context import ServingContext, SessionPolicy
from inference.session_registry import SessionRegistry
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from personas import changes as catalogue_changes
from personas import tokens
from personas.phrase_files import load_phrase_file
from personas.selectors import catalogue_version, load_catalogue
from personas.snapshot import PhraseRule
from yapserver import trial_tickets
from yapserver.env import Environment

logger = logging.getLogger("yap.runtime")


def sampling_rules(env: Environment) -> SamplingRules:
    """The server's sampling defaults and ranges."""
    names = {key: f"CHAT_{key.upper()}" for key in SAMPLING_KEYS}
    return SamplingRules(
        defaults=Sampling(**{key: getattr(env, name) for key, name in names.items()}),
        ranges={key: (getattr(env, f"{name}_MIN"), getattr(env, f"{name}_MAX")) for key, name in names.items()},
    )


def prompt_limits(env: Environment) -> PromptLimits:
    """Tokens allowed for each part of a prompt."""
    return PromptLimits(
        chat_prompt=env.CHAT_PROMPT_MAX_TOKENS,
        tool_prompt=env.TOOL_PROMPT_MAX_TOKENS,
        history=env.HISTORY_MAX_TOKENS,
        tool_history=env.TOOL_HISTORY_TOKENS,
        utterance=env.USER_UTT_MAX_TOKENS,
        chat_context=env.CHAT_MAX_LEN,
        chat_reply=env.CHAT_MAX_OUT,
        tool_context=env.TOOL_MAX_LEN,
        tool_reply=env.TOOL_MAX_OUT,
    )


def session_policy(env: Environment) -> SessionPolicy:
    """What sessions and turns need of the environment."""
    hard = env.TOOL_HARD_TIMEOUT_MS
    return SessionPolicy(
        turn=TurnPolicy(
            concurrent=env.CONCURRENT_MODEL_CALL,
            reply_timeout_s=env.GEN_TIMEOUT_S,
            prebuffer_max_chars=env.PREBUFFER_MAX_CHARS,
            flush_delay_s=env.STREAM_FLUSH_MS / 1000,
            tool=ToolPolicy(
                max_out=env.TOOL_MAX_OUT,
                timeout_s=env.TOOL_TIMEOUT_S,
                hard_timeout_s=None if hard < 0 else hard / 1000,
            ),
            check_screen_prefix=env.CHECK_SCREEN_PREFIX,
        ),
        max_out=env.CHAT_MAX_OUT,
        screen_checked_prefix=env.SCREEN_CHECKED_PREFIX,
        idle_timeout_s=env.WS_IDLE_TIMEOUT_S,
        close_client_request=env.WS_CLOSE_CLIENT_REQUEST_CODE,
        close_idle=env.WS_CLOSE_IDLE_CODE,
        close_unauthorized=env.WS_CLOSE_UNAUTHORIZED_CODE,
        log_text=env.LOG_TEXT,
        share_prefixes=env.PREFIX_SHARING == "all",
    )


def phrase_file(env: Environment) -> tuple[PhraseRule, ...] | None:
    """The rules that take the built-in list's slot. Raises ``ValueError`` with one line where the file is broken."""
    if env.CHAT_LOGIT_BIAS_FILE is None:
        return None
    try:
        return load_phrase_file(env.CHAT_LOGIT_BIAS_FILE)
    except ValueError as error:
        raise ValueError(f"CHAT_LOGIT_BIAS_FILE={error}") from None


class TokenCounts:
    """Counts prompts as the engines do, for the admin's forms (``personas.tokens.TokenCounter``)."""

    def __init__(self, chat: ChatFormat | None, tool: ChatFormat | None, limits: PromptLimits) -> None:
        self._chat, self._tool = chat or tool, tool or chat
        self.chat_limit, self.tool_limit = limits.chat_prompt, limits.tool_prompt
        self.biased_limit = MAX_BIASED_TOKENS

    def count_chat(self, text: str) -> int:
        return len(self._chat.text.encode(text.strip())) if self._chat else 0

    def count_tool(self, text: str) -> int:
        return len(self._tool.text.encode(text.strip())) if self._tool else 0

    def count_biased(self, texts: Sequence[str]) -> int:
        return len(token_biases(self._chat.text.encode, [PhraseRule(text, 0.0) for text in texts])) if self._chat else 0


class ServerRuntime:
    """One serving process. ``service`` makes the engine service; tests pass one with another factory."""

    def __init__(self, env: Environment, service: EngineService, version: str) -> None:
        self._env = env
        self._formats: dict[EngineRole, ChatFormat] = {}
        self._start: asyncio.Task[None] | None = None
        # Keys are looked up at connect only, in threads that no admin page shares.
        self._lookups = ThreadPoolExecutor(2, thread_name_prefix="keys")
        self._database = DatabaseThreads(database_breaker(), 1, "budgets")
        self._redis: SharedRedis | None = None
        self._limits = default_limits(env)
        limits = prompt_limits(env)
        if env.TOOL_MODEL is None and env.AWQ_TOOL_MODEL is None and "TOOL_HISTORY_TOKENS" not in env.model_fields_set:
            # Measured: with history before it the demo model finds 22 of 36 labelled lines, with the line alone 34.
            limits = replace(limits, tool_history=0)
        rules = sampling_rules(env)
        slots: ConnectionSlots
        budget: TokenBudget
        if env.REDIS_URL:
            self._redis = SharedRedis(env.REDIS_URL)
            slots = RedisConnectionSlots(self._redis, env.MAX_CONCURRENT_CONNECTIONS)
            budget = RedisTokenBudget(self._redis, self._tokens_today)
        else:
            slots = MemoryConnectionSlots(env.MAX_CONCURRENT_CONNECTIONS)
            budget = MemoryTokenBudget(self._tokens_today)
        self.serving = ServingContext(
            engines=service,
            resolver=PersonaResolver(PersonaEncoder(None, None, limits), PhraseStore(None)),
            decoder=Decoder(
                rules,
                personality_max_len=env.PERSONALITY_MAX_LEN,
                end_sentinel=env.WS_END_SENTINEL,
                cancel_sentinel=env.WS_CANCEL_SENTINEL,
            ),
            sampling=rules,
            policy=session_policy(env),
            ledger=UsageLedger(write_usage),
            budget=budget,
            metrics=Metrics(),
        )
        self.registry = SessionRegistry()
        self.serving.metrics.register_gauges(self.registry.__len__, lambda: self.registry.running)
        self.admission = Admission(
            find_caller=self._find_caller,
            slots=slots,
            acquire_timeout=env.WS_HANDSHAKE_ACQUIRE_TIMEOUT_S,
            close_unauthorized=env.WS_CLOSE_UNAUTHORIZED_CODE,
            close_busy=env.WS_CLOSE_BUSY_CODE,
            trust_proxy=env.TRUST_PROXY,
        )
        # A broken file stops the server here, before anything is built.
        phrases = phrase_file(env)
        self.config_watcher = ConfigWatcher(
            self.serving,
            self.registry,
            ConfigSource(catalogue_version, partial(load_catalogue, phrases), self._caller_now),
        )
        self.status = ServerStatus(self.serving, self.registry, slots, version)

    # -- life --------------------------------------------------------------------------------------

    def start_building(self) -> None:
        """Begin to build the engines in a thread; returns at once."""
        self.serving.engines.start_building()

    def start(self) -> asyncio.Task[None]:
        """The loop-bound part, once, on the loop that serves."""
        if self._start is None:
            if self._redis is not None:
                self._redis.start()
            self._start = asyncio.get_running_loop().create_task(self._run(), name="runtime")
        return self._start

    def warm_prompts(self, engine: Engine) -> list[list[int]]:
        """What an engine computes once before anyone asks; also where its tokenizer is first seen."""
        form = self._formats[engine.role] = ChatFormat(
            engine.tokenizer, utterance_max_tokens=self._env.USER_UTT_MAX_TOKENS
        )
        limits = self.serving.resolver.encoder.limits
        if engine.role is EngineRole.TOOL:
            return PersonaEncoder(None, form, limits).tool_warm_ids()
        return [
            [*form.persona("You are a friendly character."), *form.turn(form.user("Hello", first=True), first=True)]
        ]

    async def _run(self) -> None:
        serving = self.serving
        try:
            await serving.engines.ensure_running()
        except EngineDead as dead:
            logger.critical("the engines do not come up: %s", dead)
            return
        chat, tool = self._formats.get(EngineRole.CHAT), self._formats.get(EngineRole.TOOL)
        encoder = PersonaEncoder(chat, tool, serving.resolver.encoder.limits)
        serving.resolver = PersonaResolver(encoder, PhraseStore(chat))
        tokens.use(TokenCounts(chat, tool, encoder.limits))
        serving.ledger.start()
        try:
            await self.config_watcher.start()
        except Exception:
            logger.exception("the catalogue cannot be loaded")
            serving.engines.failure = "the database does not answer, or has not been migrated"
            return
        key_changes.use(self.config_watcher.announce)
        catalogue_changes.use(self.config_watcher.announce)
        serving.started = True
        # What libraries and catalogue hold stays: a full collection that looks at it stalls every stream (0.4 s).
        gc.collect()
        gc.freeze()
        logger.info("ready")

    async def drain(self, timeout: float) -> None:
        """Admit nobody, let running turns end."""
        self.serving.draining = True
        await self.registry.drain(timeout)

    async def aclose(self) -> None:
        """End everything, the engine processes last."""
        self.serving.draining = True
        key_changes.use(None)
        catalogue_changes.use(None)
        if self.serving.started:
            await self.config_watcher.aclose()
            await self.serving.ledger.close()
            await self.serving.budget.close()
            await self.admission.slots.close()
        if self._start is not None:
            self._start.cancel()
        await self.serving.engines.aclose()
        self._lookups.shutdown(wait=False)
        await self._database.aclose()
        if self._redis is not None:
            await self._redis.aclose()

    # -- keys --------------------------------------------------------------------------------------

    async def _find_caller(self, key: str, network: str) -> Caller | None:
        def look_up() -> Caller | None:
            close_old_connections()
            if trial_tickets.is_ticket(key):
                return trial_tickets.find_caller(key, self._limits)
            return authenticate(key, network, self._limits, self._env.text_api_key)

        return await asyncio.get_running_loop().run_in_executor(self._lookups, look_up)

    async def _tokens_today(self, prefix: str, now: float) -> int:
        return await self._database.read(lambda: tokens_today(prefix, now))

    def _caller_now(self, caller: Caller) -> Caller | None:
        if caller.operator_id is not None:  # a "Try it" ticket: it ends with its time and with its operator's rights
            in_time = caller.expires_at is not None and caller.expires_at > time.time()
            return caller if in_time and trial_tickets.operator_may_try(caller) else None
        if caller.key_id is None:  # TEXT_API_KEY: it changes with a restart only
            return caller
        return caller_for_sync(caller.key_id, self._limits, caller.fingerprint)
