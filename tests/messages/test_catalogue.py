"""The catalogue that ships is complete and used; a site's own is checked before it is used."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hemoscope.dicom import refusals
from hemoscope.errors import ConfigError
from hemoscope.labels import LABELS
from hemoscope.messages.catalogue import english, read_catalogue
from hemoscope.store.refusals import REMEDIES
from hemoscope.testing.catalogues import POLISH, pseudo_catalogue, write_catalogue
from hemoscope.version import DISCLAIMER

SOURCE = Path(__file__).resolve().parents[2] / "src" / "hemoscope"
STATIC = SOURCE / "web" / "static"
FILES = (".js", ".css", ".html", ".json", ".pdf", ".svg", ".csv")
JOB_FAILURES = ("no_series", "nothing_found", "out_of_memory", "time_limit", "worker_killed", "internal_error")
KINDS = ("length", "ellipse", "rectangle", "probe")
METHODS = ("cross_fitted", "test_set")
URGENCIES = ("immediate", "prompt", "unsure", "incomplete", "routine")


def problem_codes() -> set[str]:
    """The codes of the errors that the server answers with."""
    texts = (path.read_text(encoding="utf-8") for path in SOURCE.joinpath("web").rglob("*.py"))
    return {code for text in texts for code in re.findall(r'code="([a-z_]+)"', text)} | {*REMEDIES, "not_found"}


def noted_codes() -> list[str]:
    """The codes of quality notes that the page knows."""
    return re.findall(r"^  (\w+): (?:true|false),$", (STATIC / "quality.js").read_text(encoding="utf-8"), re.MULTILINE)


# What completes a key in the source: the values that it can have there.
COMPLETED: dict[str, Iterable[str]] = {
    **dict.fromkeys(("label.", "label-short.", "label-within.", "sight.", "sight.no-"), LABELS),
    **dict.fromkeys(("measure.", "measure.delete-", "keys.", "report.measured-"), KINDS),
    **dict.fromkeys(("card.method-", "meaning.measured-", "report.threshold-", "report.unsure-"), METHODS),
    "meaning.no-prevalence-": LABELS[1:],
    "state.": ("queued", "reading", "scoring", "done", "failed"),
    "urgency.": (*URGENCIES, "unknown", "failed"),
    "report.headline-": URGENCIES,
    "report.column-": ("label", "probability", "threshold", "finding", "key-slices"),
    "quality.": noted_codes(),
    "problem.": (code + part for code in sorted(problem_codes()) for part in ("", ".remedy")),
    "refused.": [code + part for code in (*refusals.REMEDIES, *JOB_FAILURES) for part in ("", ".remedy")],
    "key.": ("Enter", "PgUp", "PgDn", "Home", "End", "Del", "Esc", "Space", "Ctrl"),
    "notify.": ("on", "off", "refused"),
    "planes.": ("coronal", "coronal-label", "sagittal", "sagittal-label"),
    "slab.name-": ("average", "mip"),
    "rule.": ("sensitivity", "specificity", "precision"),
    "sent.": ("failed", "failed-why", "waiting", "waiting-why"),
    "window.": ("brain", "subdural", "bone", "stroke", "wide", "soft-tissue", "temporal-bone", "custom"),
}
USED = {start + value for start, values in COMPLETED.items() for value in values}


def sources() -> Iterator[str]:
    """Every text of the package in which a key may stand."""
    for path in (*STATIC.glob("*.js"), *STATIC.glob("*.html"), *SOURCE.glob("reports/**/*.html")):
        yield path.read_text(encoding="utf-8")
    for package in ("reports", "web"):
        yield from (path.read_text(encoding="utf-8") for path in SOURCE.joinpath(package).rglob("*.py"))


def named() -> tuple[set[str], set[str]]:
    """The keys in the source as they stand, and the beginnings of those that a value completes."""
    groups = "|".join(sorted({re.escape(key.partition(".")[0]) for key in english().texts}))
    whole = re.compile(rf"""["'`]((?:{groups})\.[\w.-]+)["'`]""")
    begun = re.compile(rf"""["'`]((?:{groups})\.[\w.-]*)\$?\{{""")
    text = "\n".join(sources())
    keys = {key for key in whole.findall(text) if not key.endswith(FILES)}
    return keys, set(begun.findall(text))


def test_every_key_of_the_source_exists_and_every_key_is_used() -> None:
    keys, begun = named()
    texts = english().texts
    assert len(keys) > 300, "the search finds what there is"
    assert begun == set(COMPLETED)
    assert not keys - set(texts)
    assert not set(texts) - keys - USED


def test_a_key_that_a_value_completes_exists_for_every_value() -> None:
    assert not [key for key in USED if key not in english().texts and not key.startswith("problem.")]


def test_each_error_that_the_store_reports_to_a_reader_has_a_text_of_the_page() -> None:
    not_of_pages = {"no_such_label", "no_such_destination", "no_results", "bad_setting"}
    assert not [code for code in REMEDIES if code not in not_of_pages and f"problem.{code}" not in english().texts]


def test_each_error_has_a_remedy() -> None:
    texts = english().texts
    problems = [key for key in texts if re.fullmatch(r"(problem\.[a-z]+_|refused\.)\w+", key)]
    assert not [key for key in problems if f"{key}.remedy" not in texts]


def test_the_disclaimer_of_reports_is_that_of_every_result() -> None:
    assert english().text("report.disclaimer") == DISCLAIMER


def test_placeholders_of_plural_forms_agree(tmp_path: Path) -> None:
    """Each English text passes the checks that a translation has to pass."""
    own = write_catalogue(tmp_path / "copy.json", {"locale": "en", **english().texts})
    assert read_catalogue(own).missing == ""


def test_a_catalogue_that_lacks_texts_shows_english_and_names_them(tmp_path: Path) -> None:
    own = read_catalogue(write_catalogue(tmp_path / "pl.json", POLISH))
    assert own.text("count.slices", count=2) == "2 warstwy"
    assert own.text("count.files", count=1) == "1 file"
    assert own.text("login.title") == "Log in"
    assert own.missing.startswith(f"{len(english().texts) - 1} texts, shown in English: common.disclaimer, ")


def test_a_catalogue_that_lacks_plural_forms_uses_other_and_names_them(tmp_path: Path) -> None:
    texts = {"locale": "pl", "count.slices": {"one": "{count} warstwa", "other": "{count} warstwy"}}
    own = read_catalogue(write_catalogue(tmp_path / "pl.json", texts))
    assert own.text("count.slices", count=5) == "5 warstwy"
    assert "2 plural forms, for which other stands: few of count.slices, many of count.slices" in own.missing


def test_english_texts_under_a_site_s_own_keep_the_english_rules(tmp_path: Path) -> None:
    own = read_catalogue(write_catalogue(tmp_path / "fr.json", {"locale": "fr"}))
    assert own.text("count.slices", count=0) == "0 slices", "French has its singular for 0"


SLICES = {"one": "{count} Schicht", "other": "{count} Schichten"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "de.json: locale is the tag of a known language"),
        ({"locale": "xx-nowhere"}, "locale is the tag of a known language, such as de or pt-BR, got 'xx-nowhere'"),
        ({"locale": 7}, "locale is the tag"),
        # Babel accepts these, and a browser's Intl refuses them.
        ({"locale": "de.UTF-8"}, "locale is the tag"),
        ({"locale": "de@euro"}, "locale is the tag"),
        ({"locale": "root"}, "locale is the tag"),
        ({"locale": "de\n"}, "locale is the tag"),
        ({"locale": "de", "login.titel": "Anmelden"}, "de.json has unknown keys: login.titel"),
        ({"locale": "de", "row.study": "Studie"}, r"de.json, row.study: it lacks the placeholder \{id\}"),
        ({"locale": "de", "row.study": "Studie {name} {id}"}, r"unknown placeholder \{name\}. Known are: \{id\}"),
        ({"locale": "de", "row.study": "Studie {id"}, r"row.study: a \{ or \} belongs to no placeholder"),
        ({"locale": "de", "row.study": "Studie {id} {}"}, r"row.study: a \{ or \} belongs to no placeholder"),
        ({"locale": "de", "login.title": " "}, "login.title: it is empty"),
        ({"locale": "de", "login.title": SLICES}, "login.title: it is one text, without plural forms"),
        ({"locale": "de", "login.title": 3}, "login.title: it is one text"),
        ({"locale": "de", "count.slices": "Schichten"}, "count.slices: it is an object of texts by plural form"),
        ({"locale": "de", "count.slices": {"other": 3}}, "count.slices: it is an object of texts by plural form"),
        ({"locale": "de", "count.slices": {"one": "eine Schicht"}}, "count.slices: the plural form other is missing"),
        ({"locale": "de", "count.slices": SLICES | {"paar": "ein paar"}}, "count.slices: there is no plural form paar"),
        ({"locale": "de", "count.slices": SLICES | {"one": "{n} Schicht"}}, r"placeholder \{n\}.* \(plural form one\)"),
    ],
)  # fmt: skip
def test_a_wrong_catalogue_is_refused_with_file_and_key(content: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        read_catalogue(write_catalogue(tmp_path / "de.json", content))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "de.json is no catalogue"),
        ("[]", "de.json is no catalogue: it is one JSON object"),
        ('{"locale": "de", "login.title": "a", "login.title": "b"}', "these keys twice: login.title"),
        ("[" * 100_000, "de.json is no catalogue"),
        ("\udcff", "de.json is no catalogue"),
    ],
)
def test_what_is_no_catalogue_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "de.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=words):
        read_catalogue(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"login.title": "Anmelden \ud800"}, r"de\.json, login\.title: it has half of a character"),
        (
            {"count.slices": {"one": "1 \udc00", "other": "{count}"}},
            r"count\.slices: it has half.* \(plural form one\)",
        ),
    ],
)
def test_a_text_that_no_answer_can_hold_is_refused(content: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "de.json").write_text(json.dumps({"locale": "de", **content}))
    with pytest.raises(ConfigError, match=words):
        read_catalogue(tmp_path / "de.json")


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read de\.json: No such file"):
        read_catalogue(tmp_path / "de.json")
    (tmp_path / "de.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(ConfigError, match=r"de\.json is larger than 4 MiB"):
        read_catalogue(tmp_path / "de.json")


def test_a_missing_key_or_placeholder_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"no\.such"):
        english().text("no.such")
    with pytest.raises(KeyError, match="id"):
        english().text("row.study")


def test_the_pseudo_catalogue_is_complete_and_longer(tmp_path: Path) -> None:
    own = read_catalogue(write_catalogue(tmp_path / "pseudo.json", pseudo_catalogue()))
    assert own.missing == ""
    assert own.text("row.study", id="7") == "⟦Study 7 öö⟧"
    assert json.loads(json.dumps(own.document()))["fallback"] == {"locale": "en", "texts": {}}
