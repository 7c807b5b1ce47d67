from __future__ import annotations

import pytest

from accounts.keys import hash_key, mint, prefix_of, same


def test_a_key_can_be_found_by_its_prefix_and_known_by_its_hash() -> None:
    minted = mint()
    assert prefix_of(minted.full) == minted.prefix
    assert hash_key(minted.full) == minted.hash
    assert len(minted.hash) == 64
    assert minted.full not in repr(minted)


def test_keys_differ_and_a_rotation_keeps_the_prefix() -> None:
    assert len({mint().full for _ in range(100)}) == 100
    first = mint()
    second = mint(first.prefix)
    assert second.prefix == first.prefix
    assert second.hash != first.hash


@pytest.mark.parametrize(
    "text",
    ["", "yap_", "yap_abcdefgh_", "yap_ABCDEFGH_" + "a" * 43, "yap_abcdefgh_" + "a" * 42,
     "yap_abcdefgh_" + "a" * 43 + "\n", "YAP_abcdefgh_" + "a" * 43, "yap_abcdefg\u0661_" + "a" * 43, "x" * 100_000],
)  # fmt: skip
def test_other_text_is_no_key(text: str) -> None:
    assert prefix_of(text) is None


def test_comparing_takes_any_text() -> None:
    assert same("ключ", "ключ")
    assert not same("ключ", "key")
    assert not same("\ud800", "?")
