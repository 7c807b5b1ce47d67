"""The fuzzer's forms: every field of every form of the admin, at its bound, above, and a thousand times above."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.security.fuzz_cases import Case, filled, sizes

MIB = 1024 * 1024
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True)
class Form:
    """One form.

    Args:
        surface: its name in the table.
        path: where it is sent.
        fields: field → bound in characters.
        base: the other fields, valid.
        most: no value is longer, in characters.
        encoded: sent percent-encoded, the costly form of a form, instead of as multipart.
        stranger: sent without the operator's session.
        fillings: what fills a field.
    """

    surface: str
    path: str
    fields: Mapping[str, int]
    base: Mapping[str, Any] = field(default_factory=dict)
    most: int = 2_000_000
    encoded: bool = False
    stranger: bool = False
    fillings: tuple[str, ...] = ("x", "{{char}}<bot>")

    def cases(self) -> Iterator[Case]:
        """The form's cases."""
        for name, bound in self.fields.items():
            for size in sizes(bound, self.most):
                for filling in self.fillings:
                    yield Case(self.surface, name, size, {**self.base, name: filled(filling, size)})


def add(app: str, model: str) -> str:
    """The address of the form of a new row."""
    return f"/admin/{app}/{model}/add/"


_WINDOWS = ("max_messages", "max_cancels", "max_persona_updates", "message_window_s", "cancel_window_s")
_PHRASES = {"phrases-TOTAL_FORMS": "1", "phrases-INITIAL_FORMS": "0"}
_LISTS = ("accounts/apikey", "accounts/usage", "auth/user", "auth/group", "personas/persona", "personas/phraselist",
          "personas/tool", "personas/toolexample", "personas/toolhead")  # fmt: skip
FORMS: tuple[Form, ...] = (
    # Its password is wrong: nothing is issued.
    Form(
        "key form", add("accounts", "apikey"),
        {
            "name": 100, "note": 2_000, "expires_at_0": 10, "expires_at_1": 8, "allowed_personas": 10,
            "tokens_per_day": 19, "max_connections": 10, "max_out": 10, "persona_update_window_s": 10,
            **dict.fromkeys(_WINDOWS, 10), "own_password": 4_096,
        },
        {"name": "customer", "own_password": "wrong"},
    ),
    Form(
        "persona form", add("personas", "persona"),
        {
            "name": 100, "nickname": 100, "slug": 64, "gender": 8, "personality": 20, "chat_prompt": 50_000,
            "tool_prompt": 50_000, "output_style": 16, "phrase_lists": 10, "tool_threshold": 4,
            **dict.fromkeys(SAMPLING, 4),
        },
        {"name": "Zoe", "slug": "zoe", "gender": "female", "personality": "calm", "output_style": "raw"},
    ),
    Form(
        "token counts", "/admin/personas/persona/tokens/",
        {"chat_prompt": 50_000, "tool_prompt": 50_000, "name": 100, "nickname": 100},
        {"name": "Zoe", "chat_prompt": "You are {{char}}."},
    ),
    Form("card form", "/admin/personas/persona/import-card/", {"gender": 8, "personality": 20}),
    Form(
        "phrase list", add("personas", "phraselist"),
        {
            "name": 100, "note": 2_000, "phrases-TOTAL_FORMS": 4, "phrases-INITIAL_FORMS": 4,
            "phrases-0-text": 200, "phrases-0-bias": 6, "phrases-0-note": 200, "phrases-page": 6,
        },
        {"name": "list", **_PHRASES}, fillings=("x", "9"),
    ),
    Form(
        "phrase import", "/admin/personas/phraselist/import/", {"text": 10_000}, most=10 * MIB,
        fillings=("x", "a phrase\n", "word,5\n", "[[", '{"a":'),
    ),
    Form("tool", add("personas", "tool"), {"name": 64, "description": 2_000, "parameters": 10_000},
         {"name": "look", "description": "Looks."}, fillings=("x", '{"a":', "[1,")),
    Form("tool example", add("personas", "toolexample"),
         {"text": 1_000, "tool": 10, "history": 2_000, "group": 64, "note": 200}, {"text": "Look!"}),
    Form("example import", "/admin/personas/toolexample/import/", {"pasted": 10_000}, most=10 * MIB,
         fillings=("x", "Look!\tlook\n", '{"text": "a"}\n')),
    Form("user form", add("auth", "user"), {"username": 150, "password1": 4_096, "password2": 4_096},
         {"username": "a", "password1": "b", "usable_password": "true"}),
    Form("group form", add("auth", "group"), {"name": 150, "permissions": 6}),
    Form("password", "/admin/password_change/",
         {"old_password": 4_096, "new_password1": 4_096, "new_password2": 4_096}, {"old_password": "wrong"}),
    Form("encoded form", add("accounts", "apikey"), {"note": 2_000}, {"name": "customer", "own_password": "wrong"},
         encoded=True),
    Form("login form", "/admin/login/", {"username": 150, "password": 4_096, "next": 1_000},
         {"username": "guess", "password": "wrong"}, encoded=True, stranger=True),
)  # fmt: skip


def list_cases() -> Iterator[Case]:
    """The searches, filters and pages of the admin's lists, and addresses of rows that are none."""
    for path in _LISTS:
        for name in ("q", "p", "o", "e", "enabled__exact"):
            for size in sizes(64, 15_000):
                yield Case("lists", name, size, f"/admin/{path}/?{name}={filled('a%20', size)}")
        for size in sizes(64, 15_000):
            yield Case("lists", "(row)", size, f"/admin/{path}/{'9' * size}/change/")
    for size in sizes(64, 15_000):
        yield Case("lists", "(ticket)", size, f"/admin/ticket/{'z' * size}/")
        yield Case("lists", "(upload)", size, f"/admin/personas/phraselist/import/?upload={'9' * size}")


def number_cases() -> Iterator[Case]:
    """Forms with many fields and many files."""
    for count in sizes(500, 100_000):
        yield Case("many fields", "multipart", count, count)
    for count in sizes(50, 20_000):
        yield Case("many files", "multipart", count, count)
