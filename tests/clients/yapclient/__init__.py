"""A small client library for the Yap wire protocol.

Copy this folder into your project. It needs `websockets`, `orjson` and, for the server's list of personas, `httpx`.

    from yapclient import Persona, Token, connect

    async with connect("ws://127.0.0.1:8000/ws", "KEY") as yap:
        async for event in yap.turn("Hello!", persona=Persona(gender="female", personality="cheerful")):
            if isinstance(event, Token):
                print(event.text, end="", flush=True)

:func:`connect` opens a :class:`Connection`: turn, barge_in, cancel, followup, chat_prompt, warm_persona,
warm_history. :class:`Dialogue` adds reconnects: it keeps the persona and the conversation.
"""

from yapclient.address import Server
from yapclient.backoff import Backoff
from yapclient.connection import Connection
from yapclient.dialogue import Dialogue
from yapclient.errors import (
    BadAddress,
    ConnectionLost,
    ConnectionRefused,
    NoServer,
    ReplyTimeout,
    RequestRefused,
    TurnFailed,
    Unreadable,
    YapError,
)
from yapclient.events import Ack, Done, Draining, Error, Event, Final, Pong, Token, ToolCall, Unknown, Warmed
from yapclient.opening import connect, open_connection
from yapclient.persona import Persona, PersonaFile, server_personas
from yapclient.timing import Timing
from yapclient.turn import Turn

__all__ = [
    "Ack",
    "Backoff",
    "BadAddress",
    "Connection",
    "ConnectionLost",
    "ConnectionRefused",
    "Dialogue",
    "Done",
    "Draining",
    "Error",
    "Event",
    "Final",
    "NoServer",
    "Persona",
    "PersonaFile",
    "Pong",
    "ReplyTimeout",
    "RequestRefused",
    "Server",
    "Timing",
    "Token",
    "ToolCall",
    "Turn",
    "TurnFailed",
    "Unknown",
    "Unreadable",
    "Warmed",
    "YapError",
    "connect",
    "open_connection",
    "server_personas",
]
