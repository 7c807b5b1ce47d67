"""Rules that depend on the address that the server listens on."""

from __future__ import annotations

MIN_TEXT_API_KEY = 16  # characters, where other machines reach the server
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    return host in ("localhost", "::1") or host.startswith("127.")


def check_text_api_key(key: str | None, host: str) -> None:
    """Raise ``ValueError`` where the server would listen beyond this machine with a key that can be guessed, and for a
    key in the form of a "Try it" ticket, whose guesses are not counted."""
    if key and key.startswith("try."):
        raise ValueError("TEXT_API_KEY may not begin with try.")
    if key and len(key) < MIN_TEXT_API_KEY and not is_loopback(host):
        raise ValueError(
            f"TEXT_API_KEY has {len(key)} characters; where other machines reach HOST={host}, at least "
            f"{MIN_TEXT_API_KEY} are needed (make one: python -c 'import secrets as s; print(s.token_urlsafe(32))')"
        )
