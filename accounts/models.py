"""API keys (never their secrets), their rights to personas, and usage."""

from __future__ import annotations

from datetime import datetime

from django.core.validators import MaxLengthValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

LIMIT_FIELDS = (
    "max_connections",
    "max_messages",
    "message_window_s",
    "max_cancels",
    "cancel_window_s",
    "max_persona_updates",
    "persona_update_window_s",
    "tokens_per_day",
    "max_out",
)
_NEVER_ZERO = ("max_connections", "tokens_per_day", "max_out")


def _limit(label: str, least: int = 0) -> models.PositiveIntegerField[int | None, int | None]:
    return models.PositiveIntegerField(label, null=True, blank=True, validators=[MinValueValidator(least)])


class ApiKey(models.Model):
    """An API key. Its text is ``yap_<prefix>_<secret>``; only the SHA-256 of it is stored.

    A limit of None means the server's own. ``previous_hash`` belongs to the secret before a rotation, which is valid
    until ``previous_until``. A revoked key stays revoked.
    """

    name = models.CharField(max_length=100, help_text="The user or application of this key.")
    prefix = models.CharField(
        max_length=8, unique=True, editable=False, help_text="The part of the key that logs show."
    )
    hash = models.CharField(max_length=64, editable=False)
    previous_hash = models.CharField(max_length=64, blank=True, default="", editable=False)
    previous_until = models.DateTimeField("old secret valid until", null=True, blank=True, editable=False)
    note = models.TextField(
        blank=True, max_length=2000, validators=[MaxLengthValidator(2000)], help_text="Shown to operators only."
    )
    created_at = models.DateTimeField("created", default=timezone.now, editable=False)
    last_used_at = models.DateTimeField("last used", null=True, blank=True, editable=False)
    expires_at = models.DateTimeField("expires", null=True, blank=True, help_text="Empty: never.")
    revoked_at = models.DateTimeField("revoked", null=True, blank=True, editable=False)

    max_connections = _limit("connections at once", 1)
    max_messages = _limit("messages per window")
    message_window_s = _limit("message window, seconds")
    max_cancels = _limit("cancels per window")
    cancel_window_s = _limit("cancel window, seconds")
    max_persona_updates = _limit("persona updates per window")
    persona_update_window_s = _limit("persona update window, seconds")
    tokens_per_day = models.PositiveBigIntegerField(
        "tokens per UTC day", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    max_out = _limit("longest reply, tokens", 1)
    personas = models.ManyToManyField(
        "personas.Persona",
        through="KeyPersona",
        blank=True,
        related_name="+",
        help_text="Personas that this key may use. Empty: every enabled persona.",
    )
    allow_own_chat_prompt = models.BooleanField("may send its own chat_prompt", default=True)
    allow_own_tool_prompt = models.BooleanField("may send its own tool_prompt", default=True)
    may_read_metrics = models.BooleanField(
        "may read metrics", default=False, help_text="Answers /metrics and the full /status for this key."
    )

    class Meta:
        verbose_name = "API key"
        ordering = ("-created_at", "-pk")
        constraints = (
            models.CheckConstraint(condition=Q(prefix__regex=r"^[a-z0-9]{8}$"), name="apikey_prefix_format"),
            models.CheckConstraint(condition=Q(hash__regex=r"^[0-9a-f]{64}$"), name="apikey_hash_format"),
            models.CheckConstraint(
                condition=Q(previous_hash="", previous_until__isnull=True)
                | Q(previous_hash__regex=r"^[0-9a-f]{64}$", previous_until__isnull=False),
                name="apikey_previous_whole",
            ),
            models.CheckConstraint(condition=~Q(name=""), name="apikey_named"),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{name}__isnull": True}) | Q(**{f"{name}__gte": 1}), name=f"apikey_{name}_positive"
                )
                for name in _NEVER_ZERO
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    def state(self, now: datetime | None = None) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        expired = self.expires_at is not None and self.expires_at <= (now or timezone.now())
        return "expired" if expired else "active"


class KeyPersona(models.Model):
    """A key's right to a persona. Such a persona cannot be deleted: a key without rows here may use every persona."""

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE)
    persona = models.ForeignKey("personas.Persona", on_delete=models.PROTECT, related_name="+")

    class Meta:
        verbose_name = "key's persona"
        constraints = (models.UniqueConstraint(fields=("key", "persona"), name="keypersona_once"),)

    def __str__(self) -> str:
        return "a key that may use only named personas"  # staff without the right to view keys sees this text


class Period(models.TextChoices):
    """The length of a usage row's bucket."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


def _count(label: str = "") -> models.PositiveBigIntegerField[int, int]:
    return models.PositiveBigIntegerField(label or None, default=0, db_default=0)


class Usage(models.Model):
    """Counts of one key with one persona in one bucket of time (UTC).

    A roll-up moves counts from minutes to hours to days, so the sum over all rows of a span is always exact.
    ``key_prefix`` is text: a row outlives its key, and ``TEXT_API_KEY`` has rows too (``env``). ``persona`` is a slug,
    empty where the client sent its own prompt. ``ttft`` is a histogram as in ``accounts.histogram``.
    """

    period = models.CharField(max_length=6, choices=Period)
    bucket = models.DateTimeField("from")
    key_prefix = models.CharField("key", max_length=8)
    persona = models.CharField(max_length=64, blank=True, default="")
    turns = _count()
    prompt_tokens = _count()
    cached_tokens = _count()
    completion_tokens = _count()
    tool_prompt_tokens = _count()
    tool_completion_tokens = _count()
    cancels = _count()
    barge_ins = _count("barge-ins")
    tool_yes = _count()
    tool_no = _count()
    suppressed = _count("suppressed phrases")
    errors = models.JSONField(default=dict, blank=True, help_text="Number of errors by code.")
    ttft = models.JSONField("time to first token", default=list, blank=True)

    class Meta:
        verbose_name_plural = "usage"
        ordering = ("-bucket", "key_prefix", "persona")
        constraints = (
            models.UniqueConstraint(
                fields=("bucket", "period", "key_prefix", "persona"), name="usage_one_row_per_bucket"
            ),
            models.CheckConstraint(condition=Q(period__in=("minute", "hour", "day")), name="usage_period_known"),
            models.CheckConstraint(condition=~Q(key_prefix=""), name="usage_has_key"),
            models.CheckConstraint(condition=Q(cached_tokens__lte=F("prompt_tokens")), name="usage_cached_are_prompt"),
        )
        indexes = (models.Index(fields=("key_prefix", "bucket"), name="usage_by_key"),)

    def __str__(self) -> str:
        return f"{self.key_prefix} {self.persona} {self.bucket:%Y-%m-%d %H:%M} ({self.period})"


class UsageWriter(models.Model):
    """A serving process that writes usage, and the number of the last batch that it has written.

    The number changes in the transaction that adds the batch, so that a batch that is written twice counts once.
    """

    id = models.UUIDField(primary_key=True)
    batch = models.PositiveBigIntegerField()
    written_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.id} {self.batch}"
