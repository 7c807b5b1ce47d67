"""``manage.py serve``: Daphne with the engines built from the start and a graceful end."""

from __future__ import annotations

import asyncio
import logging
import signal
from argparse import ArgumentParser
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from django.conf import settings
from django.core.management.base import BaseCommand

logger = logging.getLogger("yap.serve")


class Command(BaseCommand):
    """Serve until SIGTERM or SIGINT; then admit nobody, let running turns end, stop the engines."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Address and port; the environment's ``HOST`` and ``PORT`` are the defaults."""
        parser.add_argument("--host", default=settings.ENV.HOST)
        parser.add_argument("--port", type=int, default=settings.ENV.PORT)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the server; returns when it has ended."""
        from twisted.internet import reactor

        from yapserver.asgi import application

        house = application.house
        server = Server(
            application=application,
            endpoints=build_endpoint_description_strings(host=options["host"], port=options["port"]),
            signal_handlers=False,
            server_name="yap",
            verbosity=0,
        )
        stopping = False

        async def stop() -> None:
            logger.info("draining: %d turns running", house.registry.running)
            await house.drain(settings.ENV.DRAIN_TIMEOUT_S)
            await house.aclose()
            logger.info("stopped")
            server.stop()

        def on_signal() -> None:
            nonlocal stopping
            if stopping:  # asked twice: at once
                server.stop()
                return
            stopping = True
            tasks.add(asyncio.get_running_loop().create_task(stop(), name="stop"))

        def install() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, on_signal)

        tasks: set[asyncio.Task[None]] = set()
        reactor.callLater(0, install)  # callWhenRunning fires before the loop runs
        logger.info("serving on %s:%d", options["host"], options["port"])
        server.run()
