"""Client addresses: which one a request came from, and the network in which it is counted. No Django."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any


def network_of(address: str) -> str:
    """The unit in which addresses are counted: an IPv4 address, or the /64 of an IPv6 address.

    One IPv6 subscriber owns at least a /64. Text that is no address (a Unix socket's) is returned unchanged.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def client_address(peer: str, forwarded_for: str, trust_proxy: bool) -> str:
    """The address of a client.

    Args:
        peer: Address of the TCP peer.
        forwarded_for: The ``X-Forwarded-For`` header; empty where there is none.
        trust_proxy: Whether the peer is the operator's own proxy, so that the rightmost entry can be believed.
    """
    return (forwarded_for.rpartition(",")[2].strip() if trust_proxy else "") or peer


def client_address_of(scope: Mapping[str, Any], trust_proxy: bool) -> str:
    """The address of the client of an ASGI ``http`` or ``websocket`` scope; empty where the server tells none."""
    forwarded = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"x-forwarded-for"]
    return client_address(str((scope.get("client") or [""])[0]), ",".join(forwarded), trust_proxy)
