from __future__ import annotations

import pytest
from pydantic import SecretStr
from pytest_django import Settings

from accounts.checks import text_api_key


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (None, []),
        ("k9Xq2m", ["accounts.W001"]),
        ("Zk9/Xq2m+B7vLw3pTq==", ["accounts.W003"]),
        ("changeme-changeme-changeme", ["accounts.W002"]),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", ["accounts.W002"]),
        ("kV9xTq2mLr7wZc4nBd8f", []),
    ],
)
def test_a_guessable_key_is_named(settings: Settings, key: str | None, found: list[str]) -> None:
    settings.DEBUG = False
    settings.ENV = settings.ENV.model_copy(update={"TEXT_API_KEY": key and SecretStr(key)})
    messages = text_api_key()
    assert [message.id for message in messages] == found
    assert key is None or all(key not in message.msg for message in messages)
    settings.DEBUG = True
    assert text_api_key() == []
