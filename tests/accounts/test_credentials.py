from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest

from accounts.credentials import Credentials, credentials_from_scope, find_credentials, fits_subprotocol

Headers = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("headers", "query", "subprotocols"),
    [
        ([(b"x-api-key", b"k1")], b"", []),
        ([(b"X-API-Key", b" k1 ")], b"", []),
        ([(b"authorization", b"Bearer k1")], b"", []),
        ([(b"authorization", b"bearer  k1")], b"", []),
        ([], b"a=b&api_key=k1", []),
        ([], b"api_key=%6b1", []),
        ([], b"", ["yap.v1", "yap.key.k1"]),
        ([], b"", ["yap.v1", "yap.key64.azE"]),
        ([], b"", ["yap.v1", "yap.key64.azE="]),
        ([], b"", ["yap.key64.azE", "yap.key.k1"]),
        ([(b"x-api-key", b"k1"), (b"authorization", b"Bearer k1")], b"api_key=k1", ["yap.key.k1"]),
        ([(b"x-api-key", b"")], b"api_key=k1&api_key=", ["yap.key."]),
    ],
)
def test_every_way_to_present_a_key(headers: Headers, query: bytes, subprotocols: list[str]) -> None:
    found = find_credentials(headers, query, subprotocols)
    assert found.key == "k1"
    assert not found.conflict


@pytest.mark.parametrize(
    ("headers", "query", "subprotocols"),
    [
        ([(b"x-api-key", b"k1")], b"api_key=k2", []),
        ([(b"x-api-key", b"k1"), (b"x-api-key", b"k2")], b"", []),
        ([], b"api_key=k1&api_key=k2", []),
        ([(b"authorization", b"Bearer k1")], b"", ["yap.key.k2"]),
    ],
)
def test_two_different_keys_are_refused(headers: Headers, query: bytes, subprotocols: list[str]) -> None:
    assert find_credentials(headers, query, subprotocols) == Credentials(key=None, conflict=True)


@pytest.mark.parametrize("key", ["a/b+c==", "schlüssel", "k 1", '"quoted",', "日本"])
def test_any_key_fits_a_subprotocol_as_base64url(key: str) -> None:
    assert not fits_subprotocol(key)
    offer = urlsafe_b64encode(key.encode()).decode()
    for offered in (offer, offer.rstrip("=")):
        assert find_credentials([], b"", ["yap.v1", f"yap.key64.{offered}"]).key == key


@pytest.mark.parametrize("offer", ["yap.key64.", "yap.key64.?", "yap.key64.a", "yap.key64._w"])
def test_an_offer_that_is_no_base64_is_no_key(offer: str) -> None:
    found = find_credentials([], b"", [offer])
    assert found.key in (None, offer)


@pytest.mark.parametrize(
    ("headers", "query"),
    [([], b""), ([(b"authorization", b"Basic abc")], b""), ([(b"authorization", b"Bearer ")], b"x=%zz&api_key")],
)
def test_no_key(headers: Headers, query: bytes) -> None:
    assert find_credentials(headers, query) == Credentials()


def test_only_the_protocol_is_answered_and_only_when_it_was_offered() -> None:
    assert find_credentials([], b"", ["yap.key.k1", "yap.v1"]).subprotocol == "yap.v1"
    assert find_credentials([], b"", ["yap.key.k1"]).subprotocol is None


def test_a_scope_and_a_repr_without_the_key() -> None:
    scope = {"type": "websocket", "headers": [(b"x-api-key", b"topsecret")], "query_string": b"", "subprotocols": []}
    found = credentials_from_scope(scope)
    assert found.key == "topsecret"
    assert "topsecret" not in repr(found)


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert find_credentials([(b"x-api-key", b"\xff\xfe")], b"api_key=%ff").conflict
