"""Tables of tools, labelled example lines, and trained classifier heads. Verbs: ``tool_services.py``."""

from __future__ import annotations

import hashlib
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q

MAX_DESCRIPTION_CHARS = 1000
MAX_SCHEMA_CHARS = 8000
MAX_LINE_CHARS = 4000
MAX_HISTORY_CHARS = 20_000

tool_name = RegexValidator(r"\A[A-Za-z_][A-Za-z0-9_-]{0,63}\Z", "Letters, digits, _ and -; at most 64 characters.")


def validate_parameters(value: Any) -> None:
    """Check that a value is a JSON schema of an object. Raises ``ValidationError``."""
    if value in (None, {}):
        return
    if not isinstance(value, dict) or value.get("type") != "object":
        raise ValidationError('A JSON schema of the form {"type": "object", "properties": {…}}.', code="schema")
    if not isinstance(value.get("properties", {}), dict):
        raise ValidationError("properties must be an object.", code="schema")
    if len(str(value)) > MAX_SCHEMA_CHARS:
        raise ValidationError(f"At most {MAX_SCHEMA_CHARS} characters.", code="max_length")


class Tool(models.Model):
    """A tool that a client offers. ``parameters`` empty: the call is complete with its name."""

    name = models.CharField(
        max_length=64, unique=True, validators=[tool_name], help_text="The name in the toolcall frame."
    )
    description = models.TextField(
        blank=True,
        validators=[MaxLengthValidator(MAX_DESCRIPTION_CHARS)],
        help_text="One or two sentences for the model: the effect of the tool and when to call it.",
    )
    parameters = models.JSONField(
        default=dict,
        blank=True,
        validators=[validate_parameters],
        help_text='JSON schema of the arguments: {"type": "object", "properties": {…}}. Empty: no arguments.',
    )
    enabled = models.BooleanField(default=True)
    is_global = models.BooleanField("global", default=True, help_text="Applies to every persona, attached or not.")
    personas = models.ManyToManyField(
        "personas.Persona", blank=True, related_name="tools", help_text="Personas that have the tool if not global."
    )
    version = models.PositiveIntegerField(default=1, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="tool_name_not_empty"),)

    def __str__(self) -> str:
        return self.name


class ToolExample(models.Model):
    """One labelled line: the tool it wants, or none.

    ``key`` (see :func:`example_key`) keeps a line with its history from being listed twice. ``clean`` sets it, and so
    does every bulk import.
    """

    text = models.TextField("line", validators=[MaxLengthValidator(MAX_LINE_CHARS)], help_text="The line to decide on.")
    history = models.TextField(
        "lines before",
        blank=True,
        validators=[MaxLengthValidator(MAX_HISTORY_CHARS)],
        help_text="User: … and Assistant: … lines, oldest first. Empty: the line stands alone.",
    )
    tool = models.ForeignKey(
        Tool, models.CASCADE, null=True, blank=True, related_name="examples", help_text="Empty: the line wants no tool."
    )
    group = models.CharField(
        max_length=100, blank=True, help_text="Lines of one meaning share a group. Empty: grouped by similarity."
    )
    note = models.CharField(max_length=200, blank=True)
    key = models.CharField(max_length=64, unique=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-updated", "-pk")
        constraints = (models.CheckConstraint(condition=~Q(text=""), name="tool_example_not_empty"),)
        verbose_name = "tool example"

    def __str__(self) -> str:
        return self.text if len(self.text) <= 80 else f"{self.text[:79]}…"

    def clean(self) -> None:
        """Set ``key``."""
        self.key = example_key(self.text, self.history)


def example_key(text: str, history: str) -> str:
    """A digest of a line and its history; letter case and white space do not matter."""
    folded = "\0".join(" ".join(part.casefold().split()) for part in (history, text))
    return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()


class HeadState(models.TextChoices):
    """Where a trained head is in its life."""

    TRAINING = "training", "Training"
    FAILED = "failed", "Failed"
    CANDIDATE = "candidate", "Waits for acceptance"
    IN_FORCE = "in_force", "In force"
    RETIRED = "retired", "Retired"


class ToolHead(models.Model):
    """One training run and its result: the head's arrays as ``.npz`` (never a pickle) and the figures.

    At most one head is in force. ``threshold`` is the value in force for this head; ``trained_threshold`` the value
    that training chose.
    """

    state = models.CharField(max_length=10, choices=HeadState, default=HeadState.TRAINING, editable=False)
    data = models.BinaryField(default=b"", editable=False)
    classes = models.JSONField("tools", default=list, editable=False)
    encoder = models.CharField(max_length=300, blank=True, editable=False)
    feature_version = models.PositiveIntegerField(default=0, editable=False)
    threshold = models.FloatField(
        default=0.5,
        validators=[MinValueValidator(0.01), MaxValueValidator(0.99)],
        help_text="Probability of yes from which the tool is called.",
    )
    trained_threshold = models.FloatField(default=0.5, editable=False)
    accuracy = models.FloatField(null=True, editable=False)
    recall = models.FloatField(null=True, editable=False)
    false_alarms = models.FloatField(null=True, editable=False)
    details = models.JSONField(default=dict, editable=False)  # counts per class, seconds, the threshold curve
    error = models.CharField(max_length=500, blank=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("-pk",)
        verbose_name = "tool classifier"
        constraints = (
            models.UniqueConstraint(fields=("state",), condition=Q(state="in_force"), name="one_tool_head_in_force"),
            models.CheckConstraint(condition=Q(threshold__gt=0, threshold__lt=1), name="tool_head_threshold_in_range"),
        )

    def __str__(self) -> str:
        return f"version {self.pk}"
