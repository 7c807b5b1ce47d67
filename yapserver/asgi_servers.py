"""The two ASGI servers that ``manage.py serve`` offers, with one ending: admit nobody, let turns end, then stop.

Daphne is the default, the server that Channels is made with. uvicorn, with its sans-I/O WebSocket code on uvloop,
spends less of the processor on a frame. Neither compresses: token frames are too small to gain by it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from yapserver.daphne_patches import MAX_INBOUND_BYTES

if TYPE_CHECKING:
    from yapserver.asgi import Application

logger = logging.getLogger("yap.serve")


class _Ending:
    """What SIGTERM and SIGINT do: the first one drains the runtime and then calls ``stop``, a second one at once."""

    def __init__(self, application: Application, drain_timeout: float, stop: Callable[[], None]) -> None:
        self._house = application.runtime
        self._drain_timeout = drain_timeout
        self._stop = stop
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Listen for the signals, on the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked)

    def _asked(self) -> None:
        if self._task is not None:
            self._stop()
            return
        self._task = asyncio.get_running_loop().create_task(self._end(), name="stop")

    async def _end(self) -> None:
        logger.info("draining: %d turns running", self._house.registry.running)
        await self._house.drain(self._drain_timeout)
        await self._house.aclose()
        logger.info("stopped")
        self._stop()


def run_daphne(application: Application, host: str, port: int, drain_timeout: float) -> None:
    """Serve with Daphne; returns when it has ended."""
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
    ending = _Ending(application, drain_timeout, server.stop)
    reactor.callLater(0, ending.install)  # type: ignore[attr-defined, unused-ignore]  # callWhenRunning is too early
    server.run()


def run_uvicorn(application: Application, host: str, port: int, drain_timeout: float) -> None:
    """Serve with uvicorn; returns when it has ended."""
    import uvicorn

    from yapserver.uvicorn_limits import limited_protocol

    class Server(uvicorn.Server):  # type: ignore[misc, unused-ignore]
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # they are ours: the runtime ends before the server does

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

    async def serve() -> None:
        _Ending(application, drain_timeout, lambda: setattr(server, "should_exit", True)).install()
        application.runtime.start()
        await server.serve()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve())


RUNNERS: dict[str, Any] = {"daphne": run_daphne, "uvicorn": run_uvicorn}
