"""ASGI entry point: sets up Django, starts to build the engines, routes requests.

``manage.py serve``, ``manage.py runserver``, ``daphne yapserver.asgi:application`` and any other ASGI server serve
the same.
"""

# ruff: noqa: E402 - Django has to be set up between the imports
from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")
os.umask(0o077)  # the database, secrets and logs are their owner's alone

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]

_django = get_asgi_application()  # before anything that needs models

from inference.consumer import ChatConsumer
from inference.engines.service import vllm_service
from inference.engines.spec import specs
from inference.http.views import SCOPE_KEY
from inference.openai.responses_socket import BATCHES, ResponsesSocket
from inference.openai.responses_socket import PATHS as RESPONSES_PATHS
from inference.openai.surface import OpenAISurface, is_openai_path
from yapserver import daphne_patches
from yapserver.daphne_handshake import EXTENSION
from yapserver.daphne_http import bounded_http
from yapserver.env import BASE_DIR
from yapserver.http_limits import BodyLimit, SocketCounter
from yapserver.runtime import ServerRuntime
from yapserver.unauthenticated_sockets import UnauthenticatedSockets


def _make_runtime() -> ServerRuntime:
    env = settings.ENV
    # The service asks the runtime for what to warm, and the runtime is made with the service.
    service = vllm_service(specs(env), str(BASE_DIR), startup_prompts=lambda engine: runtime.startup_prompts(engine))
    try:
        runtime = ServerRuntime(env, service, settings.VERSION)
    except ValueError as error:
        raise SystemExit(f"yap: bad setting: {error}") from None
    return runtime


class Application:
    """The ASGI application: starts the runtime with the first scope, then routes."""

    def __init__(self, runtime: ServerRuntime) -> None:
        self.runtime = runtime
        # Behind a proxy every socket comes from the proxy's address; the proxy has limits of its own.
        most = settings.ENV.MAX_SOCKETS_PER_ADDRESS
        self.sockets = SocketCounter(0 if settings.ENV.TRUST_PROXY else most)
        self._unauthenticated = UnauthenticatedSockets(most, trust_proxy=settings.ENV.TRUST_PROXY)
        chat = ChatConsumer.as_asgi(serving=runtime.serving, admission=runtime.admission, registry=runtime.registry)
        self._route = ProtocolTypeRouter(
            {"http": BodyLimit(_django), "websocket": URLRouter([path("ws", chat), path("ws/", chat)])}
        )
        self._openai = OpenAISurface(runtime.openai) if settings.ENV.OPENAI_API else None
        self._responses = ResponsesSocket(runtime.openai) if settings.ENV.OPENAI_API else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.runtime.start()
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._openai is not None and scope["type"] == "http" and is_openai_path(scope["path"]):
            await self._openai(scope, receive, bounded_http(send))
            return
        scope = {**scope, SCOPE_KEY: self.runtime.status}
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        await self._route(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._responses if self._responses is not None and scope["path"] in RESPONSES_PATHS else self._route
        if route is self._route and scope["path"] not in ("/ws", "/ws/"):
            await send({"type": "websocket.close", "code": 1000})
            return
        given = send
        receive, send, ended = daphne_patches.patched(receive, send)
        if send is not given:  # Daphne, which can refuse a handshake with any status now, and write messages together
            scope["extensions"] = {**scope.get("extensions", {}), EXTENSION: {}, BATCHES: {}}
        try:
            await self._unauthenticated(route, scope, receive, send)
        finally:
            ended()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Complete the startup at once: ``/readyz`` says when the engines answer."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.runtime.drain(settings.ENV.DRAIN_TIMEOUT_S)
                await self.runtime.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


application = Application(_make_runtime())
application.runtime.start_building()

# Daphne has no lifespan: its reactor starts the runtime, so that it is ready before the first client comes, and ends it
# where Daphne was not started by our own command, which has done so before.
if "daphne.server" in sys.modules:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    from yapserver import daphne_limits

    daphne_limits.install(application.sockets)

    def _end() -> Deferred[None] | None:
        if application.runtime.serving.draining:
            return None
        return Deferred.fromFuture(asyncio.ensure_future(application.runtime.aclose()))

    reactor.callLater(0, application.runtime.start)  # callWhenRunning fires before the loop runs
    reactor.addSystemEventTrigger("before", "shutdown", _end)
