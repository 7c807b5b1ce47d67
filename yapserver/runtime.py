"""The composition root: builds every part of a serving process from the environment, starts it and ends it.

Made once, when the ASGI module is imported. The parts that belong to an event loop start with the first ASGI scope.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Sequence
from functools import partial

from django.conf import settings
from django.db import DatabaseError

from accounts.breaker import RETRY_S, DependencyAway
from inference.admission import Admission
from inference.config_watcher import ConfigSource, ConfigWatcher
from inference.engines.base import Engine, EngineDead, EngineRole
from inference.engines.sampling import SAMPLING_KEYS, Sampling, SamplingRules
from inference.engines.service import EngineService
from inference.first_turns import prepare_first_turns
from inference.http.views import ServerStatus
from inference.kept_sessions import KeptSessions
from inference.metrics import Metrics
from inference.openai.context import OpenAIContext
from inference.openai.cross_origin import CrossOrigin
from inference.openai.records import RecordStore
from inference.openai.response_copies import ResponseCopies
from inference.phrases.compiled import MAX_BIASED_TOKENS, PhraseStore, token_biases
from inference.process_report import encode
from inference.prompting.chat_template import ChatFormat
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.persona_resolver import PersonaResolver
from inference.prompting.prompt_limits import PromptLimits
from inference.protocol.decoder import Decoder
from inference.resumable_sessions import ResumableSessions
from inference.serving_context import ServingContext, SessionPolicy
from inference.session_copies import SessionCopies
from inference.session_registry import SessionRegistry
from inference.tool_classifier.encoder import SentenceEncoder, load_encoder
from inference.tool_classifier.service import ToolClassifier
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from personas import changes, tokens
from personas.phrase_files import load_phrase_file
from personas.selectors import catalogue_version, load_catalogue
from personas.snapshot import PhraseRule
from yapserver.env import Environment
from yapserver.stores import Stores

COLLECTIONS = (5_000, 5, 200)
"""When the garbage collector runs (``gc.set_threshold``). A page of the admin leaves 100,000 objects in cycles. With
Python's defaults they grow old while the page is made, and a full collection holds up every stream for 30 to 400 ms.
Here they are collected young, 5,000 or 25,000 at a time, in milliseconds."""

logger = logging.getLogger("yap.runtime")

ENGINES_END_S = 7.0
"""How long the engines may take to end before their processes are killed (seconds)."""


def sampling_rules(env: Environment) -> SamplingRules:
    """The server's sampling defaults and ranges."""
    names = {key: f"CHAT_{key.upper()}" for key in SAMPLING_KEYS}
    return SamplingRules(
        defaults=Sampling(**{key: getattr(env, name) for key, name in names.items()}),
        ranges={key: (getattr(env, f"{name}_MIN"), getattr(env, f"{name}_MAX")) for key, name in names.items()},
    )


def prompt_limits(env: Environment) -> PromptLimits:
    """Tokens allowed for each part of a prompt. The demo's tool model reads no history unless the operator chose."""
    # Measured: with history before it the demo model finds 22 of 36 labelled lines, with the line alone 34.
    line_alone = (
        env.TOOL_MODEL is None and env.AWQ_TOOL_MODEL is None and "TOOL_HISTORY_TOKENS" not in env.model_fields_set
    )
    return PromptLimits(
        chat_prompt=env.CHAT_PROMPT_MAX_TOKENS,
        tool_prompt=env.TOOL_PROMPT_MAX_TOKENS,
        history=env.HISTORY_MAX_TOKENS,
        tool_history=0 if line_alone else env.TOOL_HISTORY_TOKENS,
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
                kind=env.TOOL_DECISION,
                threshold=env.TOOL_THRESHOLD,
            ),
            check_screen_prefix=env.CHECK_SCREEN_PREFIX,
            think_max_tokens=env.CHAT_THINK_MAX_TOKENS,
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
    """One serving process.

    Args:
        env: Its settings.
        service: The engines; tests pass one with another factory.
        version: Of the server, for ``/status``.
    """

    def __init__(self, env: Environment, service: EngineService, version: str) -> None:
        self._env = env
        self._formats: dict[EngineRole, ChatFormat] = {}
        self._start: asyncio.Task[None] | None = None
        self.on_failure: Callable[[str], None] | None = None
        """Called with the reason when the server will not come up; None: it stays, and ``/readyz`` says why."""
        self.stores = Stores(env)
        limits = prompt_limits(env)
        rules = sampling_rules(env)
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
            ledger=self.stores.ledger,
            budget=self.stores.budget,
            metrics=Metrics(),
            kept=KeptSessions(env.SESSION_KEEP_S, env.SESSION_KEEP_TOKENS, copies=self._session_copies()),
        )
        self.registry = SessionRegistry(ResumableSessions(env.RESUME_GRACE_S, env.MAX_CONCURRENT_CONNECTIONS))
        self.serving.metrics.register_gauges(lambda: self.registry.connections, lambda: self.registry.running)
        self.admission = Admission(
            find_caller=self.stores.lookup.find,
            slots=self.stores.slots,
            acquire_timeout=env.WS_HANDSHAKE_ACQUIRE_TIMEOUT_S,
            close_unauthorized=env.WS_CLOSE_UNAUTHORIZED_CODE,
            close_busy=env.WS_CLOSE_BUSY_CODE,
            trust_proxy=env.TRUST_PROXY,
        )
        self.openai = OpenAIContext(
            self.serving,
            self.admission,
            self.registry,
            RecordStore(env.OPENAI_RECORDS),
            env.OPENAI_DEFAULT_MODEL,
            self._response_copies(),
            CrossOrigin(env.CORS_ORIGINS.split(",")),
        )
        # A broken file stops the server here, before anything is built.
        phrases = phrase_file(env)
        self.config_watcher = ConfigWatcher(
            self.serving,
            self.registry,
            ConfigSource(catalogue_version, partial(load_catalogue, phrases), self.stores.callers.current),
            self.stores.watching,
            self.stores.lookup,
        )
        self.status = ServerStatus(
            self.serving,
            self.registry,
            self.stores.slots,
            version,
            self.stores.degraded,
            reports=self.stores.reports,
        )
        if self.stores.reports is not None:
            self.stores.reports.publish(lambda: encode(self.status.report()))

    def _session_copies(self) -> SessionCopies | None:
        store = self.stores.copies
        return None if store is None else SessionCopies(store, settings.SECRET_KEY, lambda: self.serving.resolver)

    def _response_copies(self) -> ResponseCopies | None:
        store = self.stores.response_copies
        return None if store is None else ResponseCopies(store, settings.SECRET_KEY)

    # -- life --------------------------------------------------------------------------------------

    def start_building(self) -> None:
        """Start to build the engines in a thread; returns at once."""
        self.serving.engines.start_building()

    def start(self) -> asyncio.Task[None]:
        """Start the parts that belong to the running loop. Idempotent."""
        if self._start is None:
            self.stores.start()
            self._start = asyncio.get_running_loop().create_task(self._run(), name="runtime")
        return self._start

    def startup_prompts(self, engine: Engine) -> list[list[int]]:
        """Return the prompts whose prefixes an engine computes at its start. Reads the engine's tokenizer as well."""
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
            if self.on_failure is not None and not serving.draining:
                self.on_failure(str(dead))
            return
        chat, tool = self._formats.get(EngineRole.CHAT), self._formats.get(EngineRole.TOOL)
        encoder = PersonaEncoder(chat, tool, serving.resolver.encoder.limits)
        serving.resolver = PersonaResolver(encoder, PhraseStore(chat))
        tokens.use(TokenCounts(chat, tool, encoder.limits))
        serving.classifier = ToolClassifier(await asyncio.to_thread(self._load_encoder))
        await self._load_catalogue()
        await prepare_first_turns(serving, self.stores.callers.resident)
        changes.use(self.config_watcher.announce)
        serving.started = True
        # What libraries and catalogue hold stays: a full collection that looks at it stalls every stream (0.4 s).
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTIONS)
        logger.info("ready")

    def _load_encoder(self) -> SentenceEncoder | None:
        name = self._env.TOOL_ENCODER
        try:
            return load_encoder(name)
        except (OSError, ValueError) as error:
            logger.error("TOOL_ENCODER=%s cannot be loaded, classifiers that need it are not used: %s", name, error)
            return None

    async def _load_catalogue(self) -> None:
        """Start the config watcher. A database that is away or not migrated is asked again every second."""
        while True:
            try:
                await self.config_watcher.start()
                return
            except DependencyAway:  # its breaker has logged it
                problem = "the database does not answer"
            except DatabaseError as error:
                problem = "the database is not migrated"
                if self.status.start_problem != problem:
                    logger.error("the catalogue cannot be loaded, is the database migrated? %s", error)
            self.status.start_problem = problem
            await asyncio.sleep(RETRY_S)

    async def drain(self, timeout: float) -> None:
        """Admit no connection, let running turns end, close all connections. Takes ``timeout`` and a second at most."""
        self.serving.draining = True
        draining = asyncio.get_running_loop().create_task(self.registry.drain(timeout), name="drain")
        await asyncio.wait({draining}, timeout=timeout + 1.0)

    async def aclose(self) -> None:
        """End everything. Takes about 7 s at most: what hangs longer is left to the end of the process."""
        self.serving.draining = True
        changes.use(None)
        if self._start is not None:
            self._start.cancel()
        loop = asyncio.get_running_loop()
        until = loop.time() + ENGINES_END_S
        engines = loop.create_task(self.serving.engines.aclose(), name="end of the engines")
        await self.config_watcher.aclose()
        await self.stores.aclose()
        if not (await asyncio.wait({engines}, timeout=max(0.0, until - loop.time())))[0]:
            logger.error("the engines did not end within %g s: their processes are killed", ENGINES_END_S)
            await asyncio.to_thread(self.kill_engines)

    def kill_engines(self) -> None:
        """Kill the processes of all engines. From any thread."""
        for role in EngineRole:
            if self.serving.engines.deployed(role):
                self.serving.engines.kill_processes(role)
