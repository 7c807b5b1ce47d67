"""Work that the first turns of a process would do otherwise: done once, before the server is ready."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from contextlib import suppress

from accounts.callers import Caller
from inference.engines.base import EngineDead, EngineRole
from inference.prefix_cache import prime
from inference.prompting.persona import PersonaError
from inference.prompting.persona_resolver import PersonaResolver
from inference.serving_context import ServingContext
from personas.snapshot import PersonaSnapshot

logger = logging.getLogger("yap.runtime")

RESOLVE_LIMIT_S = 0.5
PRIME_LIMIT_S = 0.5
PRIMED_PERSONAS = 8


async def prepare_first_turns(serving: ServingContext, resident: Caller | None) -> None:
    """Resolve the stored personas, and compute their prefixes for one key. Takes about a second at most.

    Args:
        serving: the parts that sessions share, with the catalogue in force.
        resident: the key of the server itself (``TEXT_API_KEY``); None: no prefix is computed.
    """
    personas = list(serving.resolver.catalogue.personas.values())
    await asyncio.to_thread(_resolve, serving.resolver, personas, time.monotonic() + RESOLVE_LIMIT_S)
    if resident is not None and serving.resolver.encoder.chat is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PRIME_LIMIT_S):
                await _prime(serving, personas[:PRIMED_PERSONAS], serving.policy.cache_salt(resident))


def _resolve(resolver: PersonaResolver, personas: Iterable[PersonaSnapshot], until: float) -> None:
    """Encode the prompts of personas, which the encoder remembers. Stops at ``until`` of `time.monotonic`."""
    for persona in personas:
        if time.monotonic() > until:
            return
        with suppress(PersonaError):  # a prompt that is too long: the turn that wants it says so
            resolver.encode_stored(persona)


async def _prime(serving: ServingContext, personas: Collection[PersonaSnapshot], salt: str | None) -> None:
    for persona in personas:
        try:
            ids = serving.resolver.stored_prefix(persona)
            if ids:
                await prime(serving.engines.engine(EngineRole.CHAT), ids, salt)
        except PersonaError:
            continue
        except (EngineDead, RuntimeError, ValueError) as error:
            logger.warning("prefix of persona %s not computed: %s", persona.slug, error)
            return
