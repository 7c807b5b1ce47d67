"""A server process as shipped, but for its engines: ``python -m tests.security.fake_server`` serves like ``manage.py
serve``, with test doubles in place of vLLM."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from accounts.callers import Window
from inference import bounded_send
from inference.engines import service
from inference.engines.base import Delta, EngineRole, GenerationRequest
from inference.engines.spec import EngineSpec
from inference.openai import context, responses_socket
from tests.fakes.engine import FakeEngine
from tests.security import buffer_probe
from yapserver import http_limits

PACE_S = float(os.environ.get("YAP_TEST_PACE_S", "0"))
REPLY = os.environ.get("YAP_TEST_REPLY", "Hello there, how are you today?")


class ScriptedEngine(FakeEngine):
    """An engine whose prompt says how it behaves: after ``FLOOD`` text without end, after ``SILENCE`` none.

    ``YAP_TEST_REPLY`` is the reply, ``YAP_TEST_PACE_S`` the seconds between two tokens.
    """

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        end = str(self.tokenizer.decode(list(request.prompt_ids[-40:])))
        while "FLOOD" in end:
            await asyncio.sleep(0.001)
            yield Delta("word " * 4000, [5], None, len(request.prompt_ids), 0)
        if "SILENCE" in end:
            await asyncio.Event().wait()
        async with aclosing(super().generate(request)) as deltas:
            async for delta in deltas:
                if PACE_S:
                    await asyncio.sleep(PACE_S)
                yield delta


def _engine(spec: EngineSpec) -> FakeEngine:
    reply = "[]" if spec.role is EngineRole.TOOL else REPLY
    return ScriptedEngine(spec.role, reply, model=spec.model, max_model_len=4096)


def _fake_service(specs: Sequence[EngineSpec], _checkout: str, **options: Any) -> service.EngineService:
    return service.EngineService(specs, _engine, **options)


def main() -> None:
    """Serve until SIGTERM."""
    service.vllm_service = _fake_service  # type: ignore[assignment]
    scale = float(os.environ.get("YAP_TEST_DEADLINES", "1"))  # tests do not wait for a minute
    http_limits.HEADER_DEADLINE_S *= scale
    http_limits.BODY_DEADLINE_S *= scale
    responses_socket.MAX_SOCKETS_PER_KEY = int(os.environ.get("YAP_TEST_SOCKETS_PER_KEY", "256"))
    if os.environ.get("YAP_TEST_NO_WINDOWS"):  # the fuzzer's inputs come one after another
        context.REFUSED = context.ENCODINGS = Window(0, 0.0)  # type: ignore[attr-defined]
    bounded_send.SEND_TIMEOUT_S *= float(os.environ.get("YAP_TEST_SEND_TIMEOUT", "1"))

    from django.conf import settings

    from yapserver.event_loop import use_uvloop

    use_uvloop()  # as manage.py does
    from yapserver.asgi import application
    from yapserver.asgi_servers import RUNNERS

    env = settings.ENV
    served: Any = application
    if os.environ.get("YAP_TEST_PROBE"):
        buffer_probe.install()
        served = buffer_probe.BufferProbe(application)
    RUNNERS[env.SERVER](served, env.HOST, env.PORT, env.DRAIN_TIMEOUT_S)


if __name__ == "__main__":
    main()
