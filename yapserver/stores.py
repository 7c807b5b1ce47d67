"""The parts of a serving process whose state is in PostgreSQL and Redis: keys, slots, budgets, usage."""

from __future__ import annotations

import asyncio
import logging

from accounts.caller_lookup import CallerLookup
from accounts.connection_slots import ConnectionSlots, MemoryConnectionSlots
from accounts.database_threads import DatabaseThreads, database_breaker
from accounts.defaults import default_limits
from accounts.key_guesses import wrong_keys
from accounts.redis_connection import SharedRedis
from accounts.redis_connection_slots import RedisConnectionSlots
from accounts.redis_copies import RedisCopies
from accounts.redis_key_guesses import RedisKeyGuesses
from accounts.redis_process_reports import RedisProcessReports
from accounts.redis_token_budget import RedisTokenBudget
from accounts.selectors import tokens_today
from accounts.token_budget import MemoryTokenBudget, TokenBudget
from accounts.usage import UsageBatch, UsageLedger
from accounts.usage_services import write_batch
from accounts.usage_spool import Unwritten, UsageSpool
from yapserver.caller_source import CallerSource
from yapserver.env import Environment

logger = logging.getLogger("yap.runtime")

BUDGET_WAIT_S = 0.4
"""How long an admission waits for what a key has used today; after that the budget is read later."""
LAST_WRITE_S = 2.0
"""How long the last usage may take to be written at the end; after that it is kept in a file."""


class Stores:
    """Made by the composition root, one per process. Without ``REDIS_URL`` slots and budgets are in memory.

    Attributes:
        callers: Reads callers; for the config watcher.
        lookup: Finds the caller of a new connection's key.
        watching: The config watcher's database thread.
        slots: Connection slots.
        budget: Token budgets.
        ledger: Usage.
        reports: Reports of all processes; None without ``REDIS_URL``.
        copies: Copies of kept sessions; None without ``REDIS_URL`` or with ``SESSION_KEEP_S=0``.
        response_copies: Copies of stored responses; None in the same cases.
    """

    def __init__(self, env: Environment) -> None:
        breaker = database_breaker()
        # Threads of their own for each purpose: a write that hangs delays no key, and a busy admin page nothing.
        self._keys = DatabaseThreads(breaker, 2, "keys")
        self.watching = DatabaseThreads(breaker, 1, "control")
        self._writing = DatabaseThreads(breaker, 1, "usage")
        self._database = breaker
        self._redis = SharedRedis(env.redis_url) if env.redis_url else None
        self._spool = UsageSpool(env.RUN_DIR)
        self._taking_up: asyncio.Task[None] | None = None
        self.callers = CallerSource(default_limits(env), env.text_api_key)
        self.lookup = CallerLookup(self._keys, self.callers.in_memory, self.callers.in_database)
        self.ledger = UsageLedger(self._write)
        self.slots: ConnectionSlots
        self.budget: TokenBudget
        self.reports: RedisProcessReports | None = None
        self.copies: RedisCopies | None = None
        self.response_copies: RedisCopies | None = None
        self._guesses = RedisKeyGuesses(env.redis_url) if env.redis_url else None
        wrong_keys.shared = self._guesses
        if self._redis is None:
            self.slots = MemoryConnectionSlots(env.MAX_CONCURRENT_CONNECTIONS)
            self.budget = MemoryTokenBudget(self._tokens_today)
        else:
            self.slots = RedisConnectionSlots(self._redis, env.MAX_CONCURRENT_CONNECTIONS)
            self.budget = RedisTokenBudget(self._redis, self._tokens_today)
            self.reports = RedisProcessReports(self._redis)
            if env.redis_url and env.SESSION_KEEP_S > 0:
                self.copies = RedisCopies(self._redis, env.redis_url, env.SESSION_KEEP_S)
                self.response_copies = RedisCopies(self._redis, env.redis_url, env.SESSION_KEEP_S, "response")

    def degraded(self) -> list[str]:
        """Return what does not work now: ``database``, ``redis``, ``slots`` (more are taken than there are), ``usage``
        (the database answers, and takes no usage)."""
        states = {
            "database": self._database.away,
            "redis": self._redis is not None and self._redis.breaker.away,
            "slots": self.slots.over_granted,
            "usage": self.ledger.failing,
        }
        return [name for name, so in states.items() if so]

    def start(self) -> None:
        """Start what runs in the background of the serving loop, and take up what an ended process could not write."""
        if self._redis is not None:
            self._redis.start()
        try:
            unwritten = self._spool.open()
        except OSError as error:
            logger.error("usage that cannot be written at the end cannot be kept in a file: %s", error)
            unwritten = Unwritten()
        self.ledger.take_up(unwritten.batches)
        self.budget.restore(unwritten.tokens)
        self.ledger.start()
        if unwritten:
            logger.warning("usage of %s that an ended process could not write is taken up", unwritten)
            self._taking_up = asyncio.get_running_loop().create_task(self._take_up(), name="taking up usage")

    async def aclose(self) -> None:
        """Write what is not written, keep in a file what cannot be, close the connections. Takes about 5 s at most."""
        if self._taking_up is not None:
            self._taking_up.cancel()
        batches, _ = await asyncio.gather(self.ledger.close(LAST_WRITE_S), self.budget.close())
        self._keep(Unwritten(batches, self.budget.unshared()))
        await self.slots.close()
        if self.reports is not None:
            await self.reports.close()
        copies = [each.aclose() for each in (self.copies, self.response_copies) if each is not None]
        await asyncio.gather(*copies)
        threads = (self._keys, self.watching, self._writing)
        await asyncio.gather(*(each.aclose() for each in threads))
        if self._redis is not None:
            await self._redis.aclose()
        if self._guesses is not None:
            wrong_keys.shared = None
            self._guesses.close()

    def _keep(self, unwritten: Unwritten) -> None:
        if not unwritten:
            self._spool.close()
            return
        try:
            path = self._spool.save(unwritten)
        except OSError as error:
            logger.error("usage of %s is lost: it can neither be written nor kept in a file: %s", unwritten, error)
        else:
            logger.warning("usage of %s is not written; the next start takes it up from %s", unwritten, path)

    async def _take_up(self) -> None:
        while not (await self.ledger.flush() and not self.budget.unshared()):  # noqa: ASYNC110 - tried every second
            await asyncio.sleep(1.0)
        self._spool.forget_taken()

    async def _write(self, batch: UsageBatch) -> None:
        self._database.check()
        await self._writing.write(lambda: write_batch(batch))

    async def _tokens_today(self, prefix: str, now: float) -> int:
        return await self._keys.read(lambda: tokens_today(prefix, now), wait_s=BUDGET_WAIT_S)
