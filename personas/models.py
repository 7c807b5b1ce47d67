"""Tables of personas and phrase lists: fields and constraints. Verbs: ``services.py``, ``phrase_services.py``."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from personas.phrase_rules import MAX_BIAS, MAX_PHRASE_CHARS, MIN_BIAS, check_rule, phrase_key
from personas.sampling_ranges import SAMPLING_BOUNDS, SAMPLING_KEYS, InSamplingRange
from personas.snapshot import BAN_BIAS, SPEECH_KINDS, PhraseRule
from personas.text_forms import is_text
from personas.tool_models import HeadState, Tool, ToolExample, ToolHead  # noqa: F401 - Django looks for models here

MAX_NAME_CHARS = 100
MAX_PROMPT_CHARS = 50_000  # far above any token limit: bounds the text that a form or an import can have tokenised
MAX_PORTRAIT_BYTES = 10 * 2**20


class Gender(models.TextChoices):
    FEMALE = "female", "Female"
    MALE = "male", "Male"


class OutputStyle(models.TextChoices):
    RAW = "raw", "Raw: text as the model writes it"
    SPEECH = "speech", "Speech: no markdown, emoji or emoticons"


class PortraitType(models.TextChoices):
    PNG = "image/png", "PNG"
    JPEG = "image/jpeg", "JPEG"
    WEBP = "image/webp", "WebP"
    GIF = "image/gif", "GIF"
    AVIF = "image/avif", "AVIF"


def validate_letters(value: str) -> None:
    """Raise ``ValidationError`` unless the value is lower-case letters only."""
    if not value.isalpha() or value != value.lower():
        raise ValidationError("Lower-case letters only.", code="letters")


def validate_text(value: str) -> None:
    """Raise ``ValidationError`` for characters that a database or a socket cannot carry: NUL and lone surrogates."""
    if not is_text(value):
        raise ValidationError("Contains characters that are not text.", code="not_text")


def _sampling(key: str) -> models.FloatField[float | None, float | None]:
    return models.FloatField(null=True, blank=True, validators=[InSamplingRange(key)])


class PhraseList(models.Model):
    """A named set of phrases. A global list applies to every persona, any other list where a persona attaches it."""

    name = models.CharField(max_length=MAX_NAME_CHARS, unique=True)
    note = models.TextField(blank=True, help_text="For operators; never part of a prompt.")
    is_global = models.BooleanField("global", default=False, help_text="Applies to every persona, attached or not.")
    enabled = models.BooleanField(default=True)
    builtin = models.BooleanField(
        "built in", default=False, editable=False, help_text="The list that CHAT_LOGIT_BIAS_FILE replaces."
    )
    version = models.PositiveIntegerField(default=1, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Phrase(models.Model):
    """One phrase of a list. White space around the text belongs to the phrase.

    ``key`` (see ``phrase_key``) is equal for phrases that the guard cannot tell apart; unique in a list. ``clean``
    sets it, and so does every bulk import.
    """

    phrase_list = models.ForeignKey(PhraseList, models.CASCADE, related_name="phrases", verbose_name="list")
    text = models.CharField(max_length=MAX_PHRASE_CHARS)
    key = models.CharField(max_length=3 * MAX_PHRASE_CHARS + 1, editable=False)  # case folding can triple a text
    bias = models.FloatField(
        default=BAN_BIAS,
        validators=[MinValueValidator(MIN_BIAS), MaxValueValidator(MAX_BIAS)],
        help_text="-100 bans the phrase exactly; above, up to 100, makes its tokens less or more likely.",
    )
    case_sensitive = models.BooleanField(default=False)
    whole_word = models.BooleanField(default=False)
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("text", "pk")
        indexes = (models.Index(fields=("phrase_list", "text"), name="phrase_list_and_text"),)
        constraints = (
            models.UniqueConstraint(
                fields=("phrase_list", "key"),
                name="phrase_once_per_list",
                violation_error_message="This phrase is in the list already.",
            ),
            models.CheckConstraint(condition=Q(bias__gte=MIN_BIAS, bias__lte=MAX_BIAS), name="phrase_bias_in_range"),
            models.CheckConstraint(condition=~Q(text="") & ~Q(key=""), name="phrase_not_empty"),
        )

    def __str__(self) -> str:
        return repr(self.text)

    @property
    def rule(self) -> PhraseRule:
        """The phrase as a frozen rule, as snapshots hold it."""
        return PhraseRule(self.text, self.bias, self.case_sensitive, self.whole_word)

    def clean(self) -> None:
        """Set ``key``. Raises ``ValidationError`` with the reason a phrase cannot be listed."""
        if self.bias is not None:  # None: the field reports its own error
            try:
                check_rule(self.rule)
            except ValueError as error:
                reason = str(error)
                raise ValidationError({"text": f"{reason[0].upper()}{reason[1:]}."}) from None
        self.key = phrase_key(self.text, self.case_sensitive)


class Persona(models.Model):
    """A character that clients can talk to. ``version`` grows with every change of the row or its phrase lists."""

    slug = models.SlugField(max_length=64, unique=True, help_text="The name that clients send as persona.")
    name = models.CharField(
        max_length=MAX_NAME_CHARS, validators=[validate_text], help_text="The name of the character."
    )
    nickname = models.CharField(
        max_length=MAX_NAME_CHARS, blank=True, validators=[validate_text],
        help_text="The text that {{char}} stands for. Empty: the name.",
    )  # fmt: skip
    gender = models.CharField(max_length=6, choices=Gender)
    personality = models.CharField(
        max_length=20, validators=[validate_letters], help_text="One word, letters only, such as calm or playful."
    )
    chat_prompt = models.TextField(
        validators=[MaxLengthValidator(MAX_PROMPT_CHARS), validate_text],
        help_text=(
            "Description of the character. {{char}} stands for the character's name, {{user}} for the user's. "
            "Macros of the Character Card V3 specification are expanded."
        ),
    )
    tool_prompt = models.TextField(
        blank=True,
        validators=[MaxLengthValidator(MAX_PROMPT_CHARS), validate_text],
        help_text="Empty: the server's default tool prompt.",
    )
    temperature = _sampling("temperature")
    top_p = _sampling("top_p")
    top_k = models.PositiveSmallIntegerField(null=True, blank=True, validators=[InSamplingRange("top_k")])
    min_p = _sampling("min_p")
    repeat_penalty = _sampling("repeat_penalty")
    presence_penalty = _sampling("presence_penalty")
    frequency_penalty = _sampling("frequency_penalty")
    phrase_lists = models.ManyToManyField(
        PhraseList, blank=True, related_name="personas", help_text="Apply to this persona, beside the global lists."
    )
    output_style = models.CharField(max_length=6, choices=OutputStyle, default=OutputStyle.RAW)
    tool_threshold = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0.01), MaxValueValidator(0.99)],
        help_text="Probability of yes from which a tool is called, 0.01 to 0.99. Empty: the server's.",
    )  # fmt: skip
    openai_tool_decision = models.BooleanField(
        "tool decision for OpenAI's clients", default=False, db_default=False,
        help_text="A /v1 request without tools asks whether the user wants one of this persona; a yes is a tool call.",
    )  # fmt: skip
    label_stops = models.BooleanField(
        "speaker label stops", default=True,
        help_text="A reply ends where a line begins with User: or the user's name. Off for scripts and interviews.",
    )  # fmt: skip
    skip_actions = models.BooleanField(
        "skip *actions*", default=False, help_text="Speech leaves out text between single asterisks."
    )
    skip_asides = models.BooleanField(
        "skip (asides)", default=False, help_text="Speech leaves out text in round brackets."
    )
    skip_ooc = models.BooleanField(
        "skip [OOC …]", default=False, help_text="Speech leaves out notes in brackets that begin with OOC."
    )
    skip_code = models.BooleanField("skip code blocks", default=False, help_text="Speech leaves out fenced code.")
    enabled = models.BooleanField(default=True, help_text="New sessions cannot use a disabled persona.")
    card = models.JSONField(default=dict, blank=True, editable=False)  # as imported, for export
    version = models.PositiveIntegerField(default=1, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("slug",)
        constraints = (
            models.CheckConstraint(condition=Q(gender__in=("female", "male")), name="persona_gender_known"),
            models.CheckConstraint(condition=Q(output_style__in=("raw", "speech")), name="persona_output_style_known"),
            models.CheckConstraint(
                condition=~Q(slug="") & ~Q(name="") & ~Q(chat_prompt="") & ~Q(personality=""), name="persona_not_empty"
            ),
            models.CheckConstraint(condition=Q(personality=Lower(F("personality"))), name="persona_personality_lower"),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{key}__isnull": True}) | Q(**{f"{key}__gte": low, f"{key}__lte": high}),
                    name=f"persona_{key}_in_range",
                )
                for key, (low, high) in SAMPLING_BOUNDS.items()
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def char(self) -> str:
        """The text that ``{{char}}`` stands for."""
        return self.nickname.strip() or self.name

    @property
    def sampling(self) -> dict[str, float]:
        """The sampling keys that this persona sets."""
        return {key: value for key in SAMPLING_KEYS if (value := getattr(self, key)) is not None}

    @property
    def skipped_in_speech(self) -> frozenset[str]:
        """Kinds of text that the speech style leaves out, of ``SPEECH_KINDS``."""
        return frozenset(kind for kind in SPEECH_KINDS if getattr(self, f"skip_{kind}"))


class Portrait(models.Model):
    """The picture of a persona: the bytes of the imported file, never re-encoded. Apart, so that lists stay small."""

    persona = models.OneToOneField(Persona, models.CASCADE, primary_key=True, related_name="portrait")
    media_type = models.CharField(max_length=10, choices=PortraitType)
    data = models.BinaryField(max_length=MAX_PORTRAIT_BYTES)

    class Meta:
        constraints = (
            models.CheckConstraint(condition=Q(media_type__in=PortraitType.values), name="portrait_media_type_known"),
        )

    def __str__(self) -> str:
        return f"portrait of {self.persona_id}"


class PhraseUpload(models.Model):
    """The text of a phrase list between upload and preview. One per user; ``data`` is packed with zlib."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE)
    data = models.BinaryField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"upload {self.pk}"


class CatalogueVersion(models.Model):
    """One row whose number every change of the tables above raises, deletions included. Processes compare it."""

    number = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(pk=1), name="catalogue_version_one_row"),)

    def __str__(self) -> str:
        return str(self.number)
