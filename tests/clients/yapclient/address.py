"""Address of a server: a full WebSocket URL, or only an origin."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from yapclient.errors import BadAddress

_WEBSOCKET = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}


@dataclass(frozen=True)
class Server:
    """One server. `url` is the WebSocket address without the key, so it may be shown; the key goes in a header."""

    url: str
    api_key: str | None = None

    @classmethod
    def parse(cls, text: str, api_key: str | None = None, *, fallback_key: str | None = None) -> Server:
        """Parse an address.

        Args:
            text: `host:port`, `http(s)://host`, `ws(s)://host` or `ws(s)://host/path?api_key=…`; `/ws` is added if
                there is no path.
            api_key: wins over a key in the address.
            fallback_key: used if neither exists.

        Raises:
            BadAddress: the text is not an address of a WebSocket.
        """
        text = text.strip()
        parts = urlsplit(text if "://" in text else f"ws://{text}")
        try:
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise BadAddress(text, str(error)) from None
        if parts.scheme not in _WEBSOCKET:
            raise BadAddress(text, f"{parts.scheme}:// is not a WebSocket address")
        if not host or any(character.isspace() for character in host):
            raise BadAddress(text, "the host is missing")
        query = parse_qsl(parts.query, keep_blank_values=True)
        in_address = next((value for name, value in query if name == "api_key" and value), None)
        rest = urlencode([(name, value) for name, value in query if name != "api_key"])
        path = parts.path if parts.path.strip("/") else "/ws"
        url = urlunsplit((_WEBSOCKET[parts.scheme], parts.netloc.rpartition("@")[2], path, rest, ""))
        return cls(url, api_key or in_address or fallback_key or None)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that authenticate a WebSocket or HTTP request; empty without a key."""
        return {"X-API-Key": self.api_key} if self.api_key else {}

    def http(self, path: str) -> str:
        """Build the HTTP address of a path.

        Args:
            path: for example `/api/v1/personas/`; the prefix before `/ws` in the WebSocket address is kept.
        """
        parts = urlsplit(self.url)
        prefix = parts.path.rstrip("/").rpartition("/")[0]
        return urlunsplit(("https" if parts.scheme == "wss" else "http", parts.netloc, prefix + path, "", ""))

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, so that no proxy is used."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def __str__(self) -> str:
        return self.url
