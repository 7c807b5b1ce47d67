"""What operators edit: personas and phrase lists. Data and constraints; the verbs are in services.py."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from personas.phrase_files import MAX_BIAS, MAX_PHRASE_CHARS, MIN_BIAS, check_rule, phrase_key
from personas.snapshot import BAN_BIAS, PhraseRule

MAX_PROMPT_CHARS = 50_000  # far above any token limit: a bound on what a form may make us tokenise
SAMPLING_RANGES: dict[str, tuple[float, float]] = {  # inclusive, as on the wire
    "temperature": (0.2, 1.2),
    "top_p": (0.6, 1.0),
    "top_k": (10, 60),
    "min_p": (0.0, 0.20),
    "repeat_penalty": (1.0, 1.3),
    "presence_penalty": (0.0, 0.15),
    "frequency_penalty": (0.0, 0.15),
}


class Gender(models.TextChoices):
    FEMALE = "female", "Female"
    MALE = "male", "Male"


class OutputStyle(models.TextChoices):
    RAW = "raw", "Raw: text as the model writes it"
    SPEECH = "speech", "Speech: no markdown, emoji or emoticons"


def validate_letters(value: str) -> None:
    """Letters only; raises Django's ``ValidationError``."""
    if not value.isalpha() or value != value.lower():
        raise ValidationError("Lower-case letters only.", code="letters")


def validate_text(value: str) -> None:
    """Refuses what a database or a socket cannot carry: NUL and lone surrogates."""
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        raise ValidationError("Contains characters that are not text.", code="not_text")


def _range(key: str) -> tuple[str, list[MinValueValidator | MaxValueValidator]]:
    low, high = SAMPLING_RANGES[key]
    return f"{low:g} to {high:g}; empty: the server's default", [MinValueValidator(low), MaxValueValidator(high)]


def _sampling(key: str) -> models.FloatField[float | None, float | None]:
    help_text, validators = _range(key)
    return models.FloatField(null=True, blank=True, validators=validators, help_text=help_text)


class PhraseList(models.Model):
    """Phrases that belong together. A global list holds for every persona, another one where it is attached."""

    name = models.CharField(max_length=100, unique=True)
    note = models.TextField(blank=True, help_text="For operators; never shown to the model.")
    is_global = models.BooleanField("global", default=False, help_text="In force for every persona, attached or not.")
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
    """One phrase of a list, its spaces included. ``key`` is what may occur once per list; ``clean`` makes it."""

    phrase_list = models.ForeignKey(PhraseList, models.CASCADE, related_name="phrases", verbose_name="list")
    text = models.CharField(max_length=MAX_PHRASE_CHARS)
    key = models.CharField(max_length=3 * MAX_PHRASE_CHARS + 1, editable=False)  # folding can triple a text
    bias = models.FloatField(
        default=BAN_BIAS,
        validators=[MinValueValidator(MIN_BIAS), MaxValueValidator(MAX_BIAS)],
        help_text="-100 bans the phrase exactly; above, up to 100, makes its tokens rarer or likelier.",
    )
    case_sensitive = models.BooleanField(default=False)
    whole_word = models.BooleanField(default=False)
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("text", "pk")
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
        """The phrase as sessions hold it."""
        return PhraseRule(self.text, self.bias, self.case_sensitive, self.whole_word)

    def clean(self) -> None:
        """Raises ``ValidationError`` with the reason a phrase cannot be listed."""
        if self.bias is not None:  # None: the field has its own error already
            try:
                check_rule(self.rule)
            except ValueError as error:
                reason = str(error)
                raise ValidationError({"text": f"{reason[0].upper()}{reason[1:]}."}) from None
        self.key = phrase_key(self.text, self.case_sensitive)


class Persona(models.Model):
    """A character that can be talked to. ``version`` grows with every change, its phrase lists' changes included."""

    slug = models.SlugField(max_length=64, unique=True, help_text="The name clients ask for.")
    name = models.CharField(max_length=100, validators=[validate_text], help_text="What the character is called.")
    gender = models.CharField(max_length=6, choices=Gender)
    personality = models.CharField(
        max_length=20, validators=[validate_letters], help_text="One word, letters only, such as calm or playful."
    )
    chat_prompt = models.TextField(
        validators=[MaxLengthValidator(MAX_PROMPT_CHARS), validate_text],
        help_text="Who the character is. {{user}} becomes the name of whoever is talking to it.",
    )
    tool_prompt = models.TextField(
        blank=True,
        validators=[MaxLengthValidator(MAX_PROMPT_CHARS), validate_text],
        help_text="Empty: the server's own tool prompt.",
    )
    temperature = _sampling("temperature")
    top_p = _sampling("top_p")
    top_k = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=_range("top_k")[1], help_text=_range("top_k")[0]
    )
    min_p = _sampling("min_p")
    repeat_penalty = _sampling("repeat_penalty")
    presence_penalty = _sampling("presence_penalty")
    frequency_penalty = _sampling("frequency_penalty")
    phrase_lists = models.ManyToManyField(
        PhraseList, blank=True, related_name="personas", help_text="In force for this persona, beside the global lists."
    )
    output_style = models.CharField(max_length=6, choices=OutputStyle, default=OutputStyle.RAW)
    enabled = models.BooleanField(default=True, help_text="A disabled persona is unknown to new sessions.")
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
                for key, (low, high) in SAMPLING_RANGES.items()
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def sampling(self) -> dict[str, float]:
        """The sampling keys this persona sets."""
        return {key: value for key in SAMPLING_RANGES if (value := getattr(self, key)) is not None}


class CatalogueVersion(models.Model):
    """One row: a number that every change of the tables above raises, deletions too. Processes compare it."""

    number = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(pk=1), name="catalogue_version_one_row"),)

    def __str__(self) -> str:
        return str(self.number)
