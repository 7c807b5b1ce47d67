"""HTTP routes: the page to talk, health and status, REST with its OpenAPI page, and the admin."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny

from yapserver.dashboard import live
from yapserver.talk_page import talk_page
from yapserver.trial_view import ticket

urlpatterns: list[URLPattern | URLResolver] = [
    path("", talk_page, name="talk"),
    path("", include("inference.http.urls")),
    path("admin/live/", live, name="dashboard-live"),
    path("admin/ticket/<slug:slug>/", ticket, name="ticket"),
    path("admin/", admin.site.urls),
    path("api/v1/", include("personas.urls")),
    path("api/v1/", include("accounts.urls")),
    path(
        "api/schema/",
        SpectacularAPIView.as_view(permission_classes=[AllowAny], authentication_classes=[]),
        name="schema",
    ),
    path(
        "api/docs/",
        SpectacularSwaggerSplitView.as_view(
            url_name="schema", permission_classes=[AllowAny], authentication_classes=[]
        ),
        name="docs",
    ),
]
