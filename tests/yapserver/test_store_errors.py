from __future__ import annotations

import logging
import sqlite3

import psycopg
import pytest
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings
from redis.exceptions import TimeoutError as RedisTimeoutError

AWAY: dict[str, tuple[Exception, Exception | None]] = {
    "refused": (OperationalError("connection refused"), psycopg.OperationalError("connection refused")),
    "closed": (InterfaceError("the connection is closed"), None),
    "redis": (RedisTimeoutError("timed out"), None),
}
WRONG: dict[str, tuple[Exception, Exception | None]] = {
    "locked": (OperationalError("database is locked"), sqlite3.OperationalError("database is locked")),
    "other": (ZeroDivisionError(), None),
}


def view(request: HttpRequest, name: str) -> HttpResponse:
    error, cause = (AWAY | WRONG)[name]
    raise error from cause


urlpatterns = [path("<name>", view)]


@pytest.fixture(autouse=True)
def _urls(settings: Settings) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["yapserver.store_errors.StoreErrors"]


@pytest.mark.parametrize("name", AWAY)
def test_a_store_that_does_not_answer_is_a_503_and_no_log_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = Client(raise_request_exception=False).get(f"/{name}")
    assert answer.status_code == 503
    assert answer["Retry-After"] == "5"
    assert "does not answer" in answer.json()["detail"]
    assert caplog.records == []


@pytest.mark.parametrize("name", WRONG)
def test_other_errors_stay_errors(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert Client(raise_request_exception=False).get(f"/{name}").status_code == 500
    assert any(record.exc_info for record in caplog.records)
