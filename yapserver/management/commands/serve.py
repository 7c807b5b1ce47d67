"""``manage.py serve``: an ASGI server with the engines built from the start and a graceful end."""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from yapserver.asgi_servers import RUNNERS

logger = logging.getLogger("yap.serve")


class Command(BaseCommand):
    """Serve until SIGTERM or SIGINT; then admit no connection, let running turns end, stop the engines."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Address, port and server; the environment's ``HOST``, ``PORT`` and ``SERVER`` are the defaults."""
        parser.add_argument("--host", default=settings.ENV.HOST)
        parser.add_argument("--port", type=int, default=settings.ENV.PORT)
        parser.add_argument("--server", choices=RUNNERS, default=settings.ENV.SERVER)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the server. Returns when it has ended; exits with status 1 where it did not come up."""
        from yapserver.asgi import application

        host, port, server = options["host"], options["port"], options["server"]
        logger.info("serving on %s:%d with %s", host, port, server)
        failure = RUNNERS[server](application, host, port, settings.ENV.DRAIN_TIMEOUT_S)
        if failure is not None:
            raise SystemExit(f"yap: the server cannot get ready: {failure}")
