"""Phrase lists in the admin: uploaded, shown before they are saved, and saved as they were shown."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from personas.models import Phrase, PhraseList, PhraseUpload
from personas.phrase_rules import MAX_TOKEN_BIASES
from personas.phrase_services import create_phrase_list, import_phrases, rules_of
from personas.selectors import catalogue_version
from personas.snapshot import PhraseRule
from tests.personas.forms import errors_of
from tests.personas.test_phrase_formats import ANTISLOP, COUNTS

IMPORT = reverse("admin:personas_phraselist_import_list")


@pytest.fixture
def bans(db: None) -> PhraseList:
    return create_phrase_list("bans", [PhraseRule("alpha"), PhraseRule("beta"), PhraseRule(" - ")])


def at(name: str, phrase_list: PhraseList) -> str:
    return reverse(f"admin:personas_phraselist_{name}", args=[phrase_list.pk])


def uploaded(operator: Client, url: str, **source: Any) -> str:
    """The address of the preview."""
    answer = operator.post(url, source)
    assert answer.status_code == 302, errors_of(answer)
    return str(answer.headers["Location"])


def shown(page: Any) -> list[tuple[str, str, str]]:
    return list(page.context["rows"])


def save(operator: Client, url: str, **answers: Any) -> Any:
    """Asks for the preview under these answers, then saves what was shown."""
    page: Any = operator.post(url, answers | {"preview": ""})
    assert page.status_code == 200
    return operator.post(url, answers | {"save": "", "shown": page.context["answers"]})


def test_the_best_known_list(operator: Client) -> None:
    """antislop's pairs: five hundred and nineteen phrases such as ``[``, once."""
    before = catalogue_version()
    url = uploaded(operator, IMPORT, file=SimpleUploadedFile("slop.json", ANTISLOP.encode()))
    page: Any = operator.get(url)
    assert shown(page) == [("symphony", "banned", ""), ("testament to", "banned", ""), ("delving", "banned", "")]
    assert page.context["reading"].format == "JSON array of pairs"
    assert not PhraseList.objects.filter(name="slop").exists()
    assert catalogue_version() == before
    answer = save(operator, url, name="slop", numbers="ignored", is_global="on")
    made = PhraseList.objects.get(name="slop")
    assert answer.headers["Location"] == at("change", made)
    assert [rule.text for rule in rules_of(made)] == ["symphony", "testament to", "delving"]
    assert (made.is_global, all(rule.banned for rule in rules_of(made))) == (True, True)
    assert not PhraseUpload.objects.exists()
    assert LogEntry.objects.get().change_message == "Imported with 3 phrases."


def test_the_page_asks_what_numbers_mean(operator: Client) -> None:
    url = uploaded(operator, IMPORT, text=ANTISLOP)
    assert 'name="numbers"' in operator.get(url).content.decode()
    page = operator.post(url, {"name": "slop", "numbers": "probability", "preview": ""})
    assert shown(page)[0] == ("symphony", "bias -3.466", "")
    save(operator, url, name="slop", numbers="probability", whole_word="on")
    rules = rules_of(PhraseList.objects.get(name="slop"))
    assert rules[0].bias == pytest.approx(-3.4657, abs=1e-3)
    assert all(rule.whole_word for rule in rules)
    counts = uploaded(operator, IMPORT, text=COUNTS)
    for numbers, reason in (("probability", "28671 is no probability"), ("bias", "between -100 and 100")):
        page = operator.post(counts, {"name": "x", "numbers": numbers, "save": "", "shown": f"{numbers}/False/False"})
        assert reason in errors_of(page)
    plain = uploaded(operator, IMPORT, text="a\nb")
    assert 'name="numbers"' not in operator.get(plain).content.decode()


def test_nothing_is_saved_that_was_not_shown(operator: Client) -> None:
    url = uploaded(operator, IMPORT, text=ANTISLOP)
    page: Any = operator.get(url)
    answers = {"name": "slop", "numbers": "probability", "save": "", "shown": page.context["answers"]}
    page = operator.post(url, answers)
    assert page.status_code == 200
    assert "Nothing is saved yet" in page.content.decode()
    assert shown(page)[0] == ("symphony", "bias -3.466", "")
    assert operator.post(url, answers | {"shown": page.context["answers"]}).status_code == 302


def test_saving_at_once_needs_no_second_look(operator: Client) -> None:
    url = uploaded(operator, IMPORT, text="a\nb")
    page: Any = operator.get(url)
    answer = operator.post(url, {"name": "two", "save": "", "shown": page.context["answers"]})
    assert answer.status_code == 302
    assert rules_of(PhraseList.objects.get(name="two")) == (PhraseRule("a"), PhraseRule("b"))


@pytest.mark.parametrize("way", ["export_json", "export_text"])
@pytest.mark.parametrize("pasted", [False, True])
def test_export_and_import_again(operator: Client, bans: PhraseList, way: str, pasted: bool) -> None:
    answer = operator.get(at(way, bans))
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="bans.')
    source = {"text": answer.content.decode()} if pasted else {"file": SimpleUploadedFile("a", answer.content)}
    assert operator.get(IMPORT).status_code == 200
    url = uploaded(operator, IMPORT, **source)
    save(operator, url, name="copy", **({"numbers": "bias"} if way == "export_json" else {}))
    assert rules_of(PhraseList.objects.get(name="copy")) == rules_of(bans)


def test_plain_text_export_does_not_lose_a_bias(operator: Client, bans: PhraseList) -> None:
    import_phrases(bans, [PhraseRule("x", -5.0)])
    page = operator.get(at("export_text", bans), follow=True)
    assert "Not exported" in page.content.decode()
    assert b'"x": -5' in operator.get(at("export_json", bans)).content


def test_import_into_a_list(operator: Client, bans: PhraseList) -> None:
    version = catalogue_version()
    url = uploaded(operator, at("import_into", bans), text="new\r\n two \r\nALPHA\r\nNew")
    page: Any = operator.get(url)
    assert shown(page) == [("new", "banned", ""), (" two ", "banned", "")]
    assert (page.context["found"].known, page.context["found"].duplicates) == (("ALPHA",), ("New",))
    assert save(operator, url).status_code == 302
    assert rules_of(bans)[3:] == (PhraseRule("new"), PhraseRule(" two "))
    url = uploaded(operator, at("import_into", bans), text='{"only": -100, "alpha": -100}')
    assert save(operator, url, numbers="bias", replace="on").status_code == 302
    assert rules_of(bans) == (PhraseRule("only"), PhraseRule("alpha"))
    assert catalogue_version() == version + 2
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "Choose a file or paste"),
        ({"text": "\n \n"}, "Choose a file or paste"),
        ({"text": "a", "file": b"b"}, "one of the two"),
        ({"text": "a\n \n"}, "Line 2: the phrase is only white space"),
        ({"text": "{}"}, "No phrases in it"),
        ({"text": "[\na"}, "looks like a part of a JSON"),
        ({"text": '[["a", 0.5], ["b'}, "Not JSON"),
        ({"file": b"\xff"}, "Not UTF-8"),
        ({"file": b"a" * (10 * 2**20 + 1)}, "larger than 10 MiB"),
    ],
)
def test_broken_sources_are_refused_with_a_reason(
    operator: Client, bans: PhraseList, fields: dict[str, Any], reason: str
) -> None:
    if "file" in fields:
        fields = fields | {"file": SimpleUploadedFile("a", fields["file"])}
    page = operator.post(at("import_into", bans), fields)
    assert page.status_code == 200
    assert reason in errors_of(page)
    assert not PhraseUpload.objects.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"": -100}', "the phrase is empty"),
        ('{"x": -200}', "between -100 and 100"),
        (json.dumps(["a", "x" * 301]), "longer than 300"),
        (json.dumps({f"w{number}": -5 for number in range(MAX_TOKEN_BIASES + 1)}), "have a bias above -100"),
    ],
)
def test_unusable_phrases_are_refused_on_the_preview(
    operator: Client, bans: PhraseList, text: str, reason: str
) -> None:
    url = uploaded(operator, at("import_into", bans), text=text)
    assert operator.get(url).status_code == 200
    page = operator.post(url, {"numbers": "bias", "save": "", "shown": "bias/False/False"})
    assert reason in errors_of(page)
    assert len(rules_of(bans)) == 3


def test_a_taken_name_is_refused(operator: Client, bans: PhraseList) -> None:
    url = uploaded(operator, IMPORT, text="a")
    assert "exists already" in errors_of(operator.post(url, {"name": "bans", "save": "", "shown": "/False/False"}))


def test_uploads_are_of_one_user_and_expire(operator: Client, bans: PhraseList) -> None:
    url = uploaded(operator, IMPORT, text="a")
    other = Client()
    other.force_login(User.objects.create_superuser("other"))
    assert other.get(url).status_code == 302
    assert operator.get(url).status_code == 200
    for number in ("0", "x", "9" * 30, "²", "-1"):
        assert operator.get(f"{IMPORT}?upload={number}").status_code == 302
    uploaded(operator, IMPORT, text="b")
    assert PhraseUpload.objects.count() == 1
    PhraseUpload.objects.update(created=timezone.now() - timedelta(days=2))
    uploaded(other, IMPORT, text="c")
    assert PhraseUpload.objects.count() == 1


def test_import_needs_the_right(client: Client, bans: PhraseList) -> None:
    client.force_login(User.objects.create_user("reader", is_staff=True))
    for url in (IMPORT, at("import_into", bans)):
        assert client.post(url, {"text": "a"}).status_code == 403
        assert client.get(url + "?upload=1").status_code == 403


def test_a_preview_of_thousands_shows_a_hundred(operator: Client) -> None:
    url = uploaded(operator, IMPORT, text="\n".join(f"word {number}" for number in range(5_000)))
    page: Any = operator.get(url)
    assert (len(shown(page)), page.context["more"]) == (100, 4_900)
    assert save(operator, url, name="many").status_code == 302
    assert Phrase.objects.filter(phrase_list__name="many").count() == 5_000


def test_hostile_phrases_are_text_on_the_page(operator: Client) -> None:
    url = uploaded(operator, IMPORT, text="<script>alert(1)</script>\n&lt;b&gt;")
    html = operator.get(url).content.decode()
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html
