"""Templates that read the clock, and templates of reasoning models: in the manner of published ones."""

from __future__ import annotations

from datetime import date

import pytest

from inference.prompting.chat_template import ChatFormat
from inference.prompting.history import Exchange, ExchangeText, History
from inference.prompting.template_parts import split_template
from inference.prompting.thought_tags import reply_opening
from tests.fakes.tokenizers import LLAMA3_TEMPLATE, family

TODAY, TOMORROW = date(2026, 11, 25), date(2026, 11, 26)
_DATED = (
    "{%% if not date_string is defined %%}%s{%% endif %%}"
    "{{ '<|im_start|>system\nToday Date: ' + date_string + '\n\n' }}"
    "{%% for m in messages %%}{%% if m.role == 'system' %%}{{ m.content + '<|im_end|>\n' }}"
    "{%% else %%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%% endif %%}{%% endfor %%}"
    "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif %%}"
)
# Llama 3.1 has a date of its own where none is given; Llama 3.2, gpt-oss, Granite and Mistral Small ask for it.
DEFAULT_DATE = _DATED % "{% set date_string = '26 Jul 2024' %}"
CLOCK = (_DATED % "").replace("date_string", "strftime_now('%d %b %Y')")
HOURS = (_DATED % "").replace("date_string", "strftime_now('%Y-%m-%d %H:%M:%S')")

_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}"
    "{{ '<|im_start|>user\n' + m.content }}{% else %}"
    "{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\nOPEN' }}{% endif %}"
)
_HARMONY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% else %}"
    "{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


def form(template: str, days: list[date] | None = None) -> ChatFormat:
    """A format whose day is the last of ``days``."""
    tokenizer = family("chatml").__class__(
        tokenizer_object=family("chatml").backend_tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    return ChatFormat(tokenizer, today=lambda: (days or [TODAY])[-1])


def text(made: ChatFormat, ids: list[int]) -> str:
    return made.text.decode(ids)


@pytest.mark.parametrize(("template", "written"), [(DEFAULT_DATE, "25 Nov 2026"), (CLOCK, "25 Nov 2026")])
def test_a_template_that_reads_the_clock_gets_todays_date(template: str, written: str) -> None:
    made = form(template)
    assert f"Today Date: {written}\n\nYou are Anna." in text(made, made.persona("You are Anna."))
    assert made.day == TODAY


@pytest.mark.parametrize("template", [DEFAULT_DATE, CLOCK, HOURS])
def test_the_prompt_changes_at_midnight_and_only_then(template: str) -> None:
    days = [TODAY]
    made = form(template, days)
    before = made.persona("You are Anna.")
    assert made.persona("You are Anna.") == before
    days.append(TOMORROW)
    after = made.persona("You are Anna.")
    assert after != before
    assert "26" in text(made, after)
    assert made.day == TOMORROW
    assert made.persona("You are Anna.") == after


def test_a_template_without_a_date_has_no_day() -> None:
    days = [TODAY]
    made = form(LLAMA3_TEMPLATE, days)
    before = made.persona("You are Anna.")
    days.append(TOMORROW)
    assert made.day is None
    assert made.persona("You are Anna.") == before


@pytest.mark.parametrize("opening", ["<think>", "<think>\\n", "<thought>\\n", "[THINK]", "<seed:think>"])
def test_replies_are_not_put_inside_of_thoughts(opening: str) -> None:
    made = form(_R1.replace("OPEN", opening))
    mark = opening.removesuffix("\\n")
    closed = f"{mark}\n\n{mark[0]}/{mark[1:]}\n\n"
    history = History(made, 1000)
    prompt = [*made.persona("P"), *made.turn(made.user("hi", first=True), first=True)]
    assert text(made, prompt).endswith(f"<|im_start|>assistant\n{closed}")
    for number, said in enumerate(("one", "two")):
        user = made.user("hi", first=not number)
        history.append(Exchange(ExchangeText("hi", said), user, made.reply(said)))
    whole = text(made, [*made.persona("P"), *history.ids])
    assert f"{closed}one<|im_end|>" in whole
    assert whole.endswith(f"{closed}two")


def test_gpt_oss_writes_into_its_final_channel_at_once() -> None:
    made = form(_HARMONY)
    prompt = text(made, [*made.persona("P"), *made.turn(made.user("hi", first=True), first=True)])
    assert prompt == (
        "<|start|>system<|message|>P<|end|><|start|>user<|message|>hi<|end|>"
        "<|start|>assistant<|channel|>final<|message|>"
    )
    speaks_first = text(made, [*made.persona("P"), *made.turn(None, first=True)])
    assert speaks_first.endswith("P<|end|><|start|>assistant<|channel|>final<|message|>")


@pytest.mark.parametrize(
    ("prompt", "past", "opening"),
    [
        ("<A>", "<A>", "<A>"),
        ("<A><think>\n", "<A>", "<A><think>\n\n</think>\n\n"),
        ("<A><think>\n\n</think>\n\n", "<A>", "<A><think>\n\n</think>\n\n"),
        ("<A>", "<A> ", "<A>"),
        ("<A>", None, "<A>"),
        ("<|start|>assistant", None, "<|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_the_opening_of_a_reply(prompt: str, past: str | None, opening: str) -> None:
    assert reply_opening(prompt, past) == opening


def test_a_day_changes_nothing_but_the_date() -> None:
    tokenizer = form(CLOCK)._tokenizer
    one, other = split_template(tokenizer, TODAY), split_template(tokenizer, TOMORROW)
    assert one.before_system.replace("25", "26") == other.before_system
    assert (one.first_user, one.next_user, one.after_user) == (other.first_user, other.next_user, other.after_user)
