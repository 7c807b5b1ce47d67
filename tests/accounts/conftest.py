from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.db import connections
from pytest_django import DjangoDbBlocker, Settings

from accounts.callers import Caller, Limits, Window
from personas import changes
from tests.servers import PostgresCluster
from yapserver.database_settings import database_settings

DEFAULTS = Limits(messages=Window(20, 60.0), cancels=Window(10, 30.0), persona_updates=Window(4, 60.0))


class Clock:
    """Time that stands still until told otherwise."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def caller(prefix: str = "aaaaaaaa", **limits: Any) -> Caller:
    """A caller with a limit or two of its own."""
    own = Limits(DEFAULTS.messages, DEFAULTS.cancels, DEFAULTS.persona_updates, **limits)
    return Caller(key_id=1, prefix=prefix, name=prefix, limits=own)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _fresh(settings: Settings) -> None:
    """No attempts of other tests, and no middleware that looks at every static file for every new client."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.startswith("whitenoise.")]
    cache.clear()


@pytest.fixture
def news() -> Iterator[list[tuple[str, str]]]:
    """What was announced after commits."""
    told: list[tuple[str, str]] = []
    changes.use(lambda topic, ident: told.append((topic, ident)))
    yield told
    changes.use(None)


@contextmanager
def _default_database(url: str) -> Iterator[None]:
    """Points Django at another database, in this thread and in those it starts."""
    old_settings, old_connection = connections.settings["default"], connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": database_settings(url, Path())})[
        "default"
    ]
    connections["default"] = connections.create_connection("default")
    try:
        yield
    finally:
        connections["default"].close()
        connections.settings["default"] = old_settings
        connections["default"] = old_connection


@pytest.fixture(scope="module")
def _postgres_url(postgres_cluster: PostgresCluster, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    url = postgres_cluster.new_database()
    with django_db_blocker.unblock(), _default_database(url):
        call_command("migrate", verbosity=0)
    yield url
    postgres_cluster.drop_database(url)


@pytest.fixture
def postgres(_postgres_url: str, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Django on a real PostgreSQL, migrated, emptied of keys and usage, committing for real."""
    with django_db_blocker.unblock(), _default_database(_postgres_url):
        with connections["default"].cursor() as cursor:
            cursor.execute("TRUNCATE accounts_usage, accounts_apikey CASCADE")
        yield


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.processes)])
def either_database(request: pytest.FixtureRequest) -> str:
    """The test runs on SQLite and on PostgreSQL."""
    request.getfixturevalue("transactional_db" if request.param == "sqlite" else "postgres")
    return str(request.param)
