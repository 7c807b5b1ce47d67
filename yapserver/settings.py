"""Django's settings, made from the typed environment. SQLite and no Redis unless the operator names them."""

from __future__ import annotations

import os
import secrets
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from accounts.redis_connection import connection_options
from yapserver.database_settings import database_settings
from yapserver.env import BASE_DIR, read
from yapserver.listen_address import LOOPBACK_NAMES, is_loopback
from yapserver.logs import logging_config
from yapserver.navigation import favicon, navigation

ENV = read()
ENV.RUN_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
VERSION: str = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]
# The inclusive ranges of the sampling keys: the admin's forms and stored personas keep to the clients' own.
SAMPLING_RANGES: dict[str, tuple[float, float]] = {
    key: (getattr(ENV, f"CHAT_{key.upper()}_MIN"), getattr(ENV, f"CHAT_{key.upper()}_MAX"))
    for key in (
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
    )
}


def _owner_only(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _keep_private(path: Path) -> None:
    """Remove the access of group and others to a file that an earlier version created with it."""
    with suppress(OSError):
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _secret_key() -> str:
    """Return ``SECRET_KEY``, or the secret that is generated once per ``RUN_DIR``, readable by its owner alone."""
    if ENV.SECRET_KEY:
        return ENV.SECRET_KEY.get_secret_value()
    path = ENV.RUN_DIR / "secret.key"
    # Mode `x` fails where another process was first: both processes then read the same secret.
    with suppress(FileExistsError), open(path, "x", opener=_owner_only) as file:
        file.write(secrets.token_urlsafe(64))
    return path.read_text().strip()


def _database() -> dict[str, Any]:
    try:
        return database_settings(ENV.database_url, ENV.RUN_DIR)
    except ValueError as error:
        raise SystemExit(f"yap: bad setting: DATABASE_URL: {error}") from None


SECRET_KEY = _secret_key()
DEBUG = ENV.DEBUG
CSRF_TRUSTED_ORIGINS = [origin.strip() for origin in ENV.CSRF_TRUSTED_ORIGINS.split(",") if origin.strip()]


def _allowed_hosts() -> list[str]:
    """Return the named hosts; on loopback, this machine's names by default (a defence against DNS rebinding).

    This machine's names are always among them, because probes use them: a page cannot point them at another address.
    """
    named = [host.strip() for host in ENV.ALLOWED_HOSTS.split(",") if host.strip()]
    if named:
        return [*named, *LOOPBACK_NAMES]
    if not is_loopback(ENV.HOST):
        return ["*"]
    return [*LOOPBACK_NAMES, *(host for origin in CSRF_TRUSTED_ORIGINS if (host := urlsplit(origin).hostname))]


ALLOWED_HOSTS = _allowed_hosts()

INSTALLED_APPS = [
    "daphne",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "accounts",
    "personas",
    "inference",
    "yapserver",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "yapserver.store_errors.StoreErrors",
    "yapserver.content_security.content_security_policy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "yapserver.urls"
ASGI_APPLICATION = "yapserver.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
for _suffix in ("", "-wal", "-shm"):
    _keep_private(ENV.RUN_DIR / f"yap.sqlite3{_suffix}")
DATABASES = {"default": _database()}

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "yapserver" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.debug",
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# The channel layer carries control messages only, never tokens.
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": (
        {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [{"address": ENV.redis_url, **connection_options()}]},
        }
        if ENV.redis_url
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    )
}
CACHES: dict[str, dict[str, Any]] = {
    "default": (
        {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": ENV.redis_url,
            "OPTIONS": connection_options(),
        }
        if ENV.redis_url
        # Login attempts are counted here: with the default of 300 entries, an attacker could push the counts out.
        else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000}}
    )
}

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

STATIC_URL = "static/"
STATIC_ROOT = ENV.RUN_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True  # `runserver` and `daphne` serve the admin's files without collectstatic

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Yap",
    "DESCRIPTION": "Status, personas and usage of a Yap server. Conversations run over the WebSocket at `/ws` and over "
    "OpenAI's protocols below `/v1`.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "yapserver.openai_schema.add_openai_surface",
    ],
}
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Yap",
    "SITE_HEADER": "Yap",
    "SITE_SYMBOL": "forum",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": favicon}],
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "yapserver.dashboard.callback",
    "SIDEBAR": {"navigation": navigation()},
}

# Cookies are secure behind TLS. On plain http://127.0.0.1, a secure cookie would make a login impossible.
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3600  # seconds; a working day, counted from the login
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = ENV.TRUST_PROXY
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENV.TRUST_PROXY else None
SECURE_HSTS_SECONDS = 31_536_000 if ENV.TRUST_PROXY else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = False  # other hosts of the domain may not have TLS
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]  # probes use plain HTTP
X_FRAME_OPTIONS = "DENY"
# `check --deploy` asks for HSTS on subdomains (W005) and for preloading (W021): see above. TLS itself (W004, W008,
# W012, W016) is silenced on loopback alone, where requests do not cross a network.
_NO_NETWORK = is_loopback(ENV.HOST) and not ENV.TRUST_PROXY
SILENCED_SYSTEM_CHECKS = [
    f"security.{check}" for check in ("W005", "W021", *(("W004", "W008", "W012", "W016") if _NO_NETWORK else ()))
]

LOGGING = logging_config(ENV.LOG_FILE, (ENV.TEXT_API_KEY, ENV.SECRET_KEY, ENV.HF_TOKEN))
