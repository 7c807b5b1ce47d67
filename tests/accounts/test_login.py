from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from redis.exceptions import ConnectionError as RedisConnectionError

from accounts import login_attempts
from accounts.login_attempts import PER_ACCOUNT, PER_NETWORK, PER_NETWORK_AND_ACCOUNT

pytestmark = pytest.mark.django_db
PASSWORD = "not-a-secret"


@pytest.fixture(autouse=True)
def _operators() -> None:
    login_attempts._local.clear()
    for name in ("operator", "other"):
        User.objects.create_superuser(name, password=PASSWORD)


def attempt(
    client: Client, name: str = "operator", password: str = "wrong", address: str = "192.0.2.1"
) -> HttpResponse:
    data = {"username": name, "password": password}
    return client.post(reverse("admin:login"), data, REMOTE_ADDR=address)  # type: ignore[return-value]


def got_in(response: HttpResponse) -> bool:
    return response.status_code == 302


def test_a_right_password_gets_in_and_wrong_ones_before_are_forgotten(client: Client) -> None:
    for _ in range(2):
        for _ in range(PER_NETWORK_AND_ACCOUNT - 1):
            assert not got_in(attempt(client))
        assert got_in(attempt(client, password=PASSWORD))


def test_too_many_attempts_keep_even_the_right_password_out(client: Client) -> None:
    for _ in range(PER_NETWORK_AND_ACCOUNT):
        assert "Too many attempts" not in attempt(client).content.decode()
    refused = attempt(client, password=PASSWORD)
    assert not got_in(refused)
    assert "Too many attempts" in refused.content.decode()
    assert not got_in(attempt(client, "OPERATOR", PASSWORD))
    assert got_in(attempt(client, password=PASSWORD, address="192.0.2.2"))
    assert got_in(attempt(client, "other", PASSWORD))


def test_many_names_from_one_address(client: Client) -> None:
    for number in range(PER_NETWORK):
        attempt(client, f"guess{number}")
    assert "Too many attempts" in attempt(client, password=PASSWORD).content.decode()


def test_the_window_ends(client: Client) -> None:
    for _ in range(PER_NETWORK_AND_ACCOUNT + 1):
        attempt(client)
    cache.clear()  # what the cache does by itself after the window
    assert got_in(attempt(client, password=PASSWORD))


def test_the_throttle_works_without_the_shared_cache(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_attempts, "cache", _Down())
    assert got_in(attempt(client, password=PASSWORD))
    for _ in range(PER_NETWORK_AND_ACCOUNT):
        attempt(client)
    assert "Too many attempts" in attempt(client, password=PASSWORD).content.decode()


def test_one_ipv6_subscriber_is_one_address(client: Client) -> None:
    for number in range(PER_NETWORK_AND_ACCOUNT):
        attempt(client, address=f"2001:db8:1:2::{number:x}")
    assert "Too many attempts" in attempt(client, password=PASSWORD, address="2001:db8:1:2:ffff::1").content.decode()
    assert got_in(attempt(client, password=PASSWORD, address="2001:db8:1:3::1"))


def test_an_account_under_attack_from_everywhere_is_slow_and_its_owner_is_not_locked_out(client: Client) -> None:
    assert got_in(attempt(client, password=PASSWORD, address="198.51.100.7"))  # where the owner works
    for number in range(PER_ACCOUNT + 5):
        attempt(client, address=f"203.0.113.{number}")
    refused = attempt(client, password=PASSWORD, address="192.0.2.77")
    assert "Too many attempts. Try again in 1 minute." in refused.content.decode()
    assert got_in(attempt(client, password=PASSWORD, address="198.51.100.7"))
    assert got_in(attempt(client, "other", PASSWORD, address="192.0.2.77"))
    cache.delete(login_attempts._name("slot", "operator"))  # a minute later
    assert got_in(attempt(client, password=PASSWORD, address="192.0.2.78"))


class _Down:
    """A cache whose server does not answer."""

    def __getattr__(self, name: str) -> object:
        raise RedisConnectionError("no Redis")
