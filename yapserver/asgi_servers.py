"""The two ASGI servers of ``manage.py serve``, with one shutdown (:mod:`yapserver.shutdown`).

Daphne is the default, the server that Channels is made with. uvicorn, with its sans-I/O WebSocket code, needs less
processor time for a frame. Both run on uvloop (:mod:`yapserver.event_loop`). Neither compresses: token frames are too
small to gain by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from yapserver.daphne_patches import MAX_INBOUND_BYTES
from yapserver.shutdown import Shutdown

if TYPE_CHECKING:
    from yapserver.asgi import Application

Run = Callable[["Application", str, int, float], str | None]
"""Serves until the end; returns why the server did not come up, or None."""


def run_daphne(application: Application, host: str, port: int, drain_timeout: float) -> str | None:
    """Serve with Daphne until the end. Returns why the server did not come up, or None."""
    from daphne.endpoints import build_endpoint_description_strings
    from daphne.server import Server
    from twisted.internet import reactor

    server = Server(
        application=application,
        endpoints=build_endpoint_description_strings(host=host, port=port),
        signal_handlers=False,
        server_name="yap",
        verbosity=0,
    )
    shutdown = Shutdown(application.runtime, drain_timeout, server.stop)
    reactor.callLater(0, shutdown.install)  # type: ignore[attr-defined, unused-ignore]  # callWhenRunning is too early
    server.run()
    return shutdown.failure


def run_uvicorn(application: Application, host: str, port: int, drain_timeout: float) -> str | None:
    """Serve with uvicorn until the end. Returns why the server did not come up, or None."""
    import uvicorn

    from yapserver.uvicorn_limits import limited_protocol

    class Server(uvicorn.Server):  # type: ignore[misc, unused-ignore]
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # Shutdown handles them: the runtime ends before the server does

    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        loop="uvloop",
        http=limited_protocol(application.sockets),
        proxy_headers=False,  # Django reads the proxy's headers, and only with TRUST_PROXY=1
        ws="websockets-sansio",
        ws_max_size=MAX_INBOUND_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",  # the runtime is started and ended here
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = Server(config)
    shutdown = Shutdown(application.runtime, drain_timeout, lambda: setattr(server, "should_exit", True))

    async def serve() -> None:
        shutdown.install()
        application.runtime.start()
        await server.serve()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve())
    return shutdown.failure


RUNNERS: dict[str, Run] = {"daphne": run_daphne, "uvicorn": run_uvicorn}
