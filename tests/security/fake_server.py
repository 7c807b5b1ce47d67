"""A server process as shipped, but for its engines: ``python -m tests.security.fake_server`` serves like ``manage.py
serve``, with test doubles in place of vLLM."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")

from collections.abc import Sequence
from typing import Any

from inference.engines import service
from inference.engines.base import EngineRole
from inference.engines.spec import EngineSpec
from tests.fakes.engine import FakeEngine
from yapserver import http_limits


def _engine(spec: EngineSpec) -> FakeEngine:
    reply = "[]" if spec.role is EngineRole.TOOL else "Hello there, how are you today?"
    return FakeEngine(spec.role, reply, model=spec.model, max_model_len=4096)


def _fake_service(specs: Sequence[EngineSpec], _checkout: str, **options: Any) -> service.EngineService:
    return service.EngineService(specs, _engine, **options)


def main() -> None:
    """Serve until SIGTERM."""
    service.vllm_service = _fake_service  # type: ignore[assignment]
    scale = float(os.environ.get("YAP_TEST_DEADLINES", "1"))  # tests do not wait for a minute
    http_limits.HEADER_DEADLINE_S *= scale
    http_limits.BODY_DEADLINE_S *= scale

    from django.conf import settings

    from yapserver.asgi import application
    from yapserver.asgi_servers import RUNNERS

    env = settings.ENV
    RUNNERS[env.SERVER](application, env.HOST, env.PORT, env.DRAIN_TIMEOUT_S)


if __name__ == "__main__":
    main()
