from __future__ import annotations

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import services
from accounts.authentication import KeyAuthentication
from accounts.callers import Caller

pytestmark = pytest.mark.django_db


class Who(APIView):
    authentication_classes = (KeyAuthentication,)

    def get(self, request: Request) -> Response:
        assert isinstance(request.auth, Caller)
        return Response({"prefix": request.auth.prefix, "user": str(request.user)})


def ask(request: HttpRequest) -> Response:
    response = Who.as_view()(request)
    assert isinstance(response, Response)
    return response


def test_each_way_in(rf: RequestFactory) -> None:
    row, full = services.create_key("customer")
    for request in (
        rf.get("/", {"api_key": full}),
        rf.get("/", headers={"X-API-Key": full}),
        rf.get("/", headers={"Authorization": f"Bearer {full}"}),
    ):
        response = ask(request)
        assert response.status_code == 200
        assert response.data == {"prefix": row.prefix, "user": row.prefix}


def test_401_with_a_challenge(rf: RequestFactory) -> None:
    row, full = services.create_key("customer")
    other = services.create_key("another")[1]
    services.revoke_key(services.create_key("revoked")[0])
    for request in (
        rf.get("/"),
        rf.get("/", headers={"X-API-Key": "nonsense"}),
        rf.get("/", {"api_key": other}, headers={"X-API-Key": full}),
    ):
        response = ask(request)
        assert response.status_code == 401
        assert response["WWW-Authenticate"] == 'Bearer realm="yap"'
        assert set(response.data) == {"detail"}
    services.revoke_key(row)
    assert ask(rf.get("/", headers={"X-API-Key": full})).status_code == 401
