"""One catalogue of the texts that readers see on pages and in reports: ``en.json``, or a site's translation of it.

A catalogue is a JSON object of texts by key. A text is a string with placeholders such as ``{name}``, or an object of
strings by plural category (CLDR: zero, one, two, few, many, other), from which the placeholder ``{count}`` chooses.
``web/static/messages.js`` reads the same file by the same rules. Texts are plain: whoever shows one escapes it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hemoscope.errors import ConfigError

Text = str | Mapping[str, str]

LOCALE = "locale"
_CATEGORIES = ("zero", "one", "two", "few", "many", "other")
# BCP 47, as far as browsers and Babel both read it; Babel alone also takes POSIX names such as ``de.UTF-8``.
_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_MOST_BYTES = 4 << 20
_NAMED = 10  # keys in one message


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """The texts of one language.

    Attributes:
        locale: of the texts, a language tag (BCP 47) such as ``de`` or ``pt-BR``.
        texts: by key.
        fallback: the catalogue that ships, with the texts that a site's own lacks; None for that one itself.
        missing: what a site's own lacks, in words for its administrator; "" if nothing.
    """

    locale: str
    texts: Mapping[str, Text]
    fallback: "Catalogue | None" = None
    missing: str = ""
    _forms: dict[str, Any] = field(default_factory=dict, repr=False)

    def text(self, key: str, /, **values: object) -> str:
        """Return the text of a key, its placeholders filled; ``count`` also chooses the plural form.

        Raises:
            KeyError: no catalogue has the key, or a placeholder has no value.

        Examples:
            >>> english().text("count.slices", count=1), english().text("count.slices", count=1200)
            ('1 slice', '1,200 slices')
        """
        if key not in self.texts:
            if self.fallback is None:
                raise KeyError(key)
            return self.fallback.text(key, **values)
        text = self.texts[key]
        shown = {name: str(value) for name, value in values.items()}
        if "count" in values:
            shown["count"] = self._shown_count(values["count"])
        if not isinstance(text, str):
            text = text.get(self._form(values["count"]), text["other"])
        return _PLACEHOLDER.sub(lambda found: shown[found[1]], text)

    def translates(self, key: str) -> bool:
        """Whether a site's own catalogue has the key, so that it is used instead of an English text of the package."""
        return self.fallback is not None and key in self.texts

    def instead(self, key: str, given: str) -> str:
        """Return what is given in English, unless a site's own catalogue has the key."""
        return self.text(key) if self.translates(key) else given

    def document(self) -> dict[str, Any]:
        """What a page needs, as JSON: ``locale``, ``texts``, and the same as ``fallback`` for the texts not in it."""
        fallback = self.fallback
        rest = fallback and {key: text for key, text in fallback.texts.items() if key not in self.texts}
        return {
            "locale": self.locale,
            "texts": dict(self.texts),
            "fallback": fallback and {"locale": fallback.locale, "texts": rest},
        }

    def _form(self, count: Any) -> str:
        if "form" not in self._forms:
            self._forms["form"] = _locale_of(self.locale).plural_form
        return str(self._forms["form"](count))

    def _shown_count(self, count: Any) -> str:
        if "locale" not in self._forms:
            self._forms["locale"] = _locale_of(self.locale)
        from babel.numbers import format_decimal

        return format_decimal(count, locale=self._forms["locale"])


@cache
def english() -> Catalogue:
    """The catalogue that ships."""
    document = json.loads(resources.files("hemoscope.messages").joinpath("en.json").read_text(encoding="utf-8"))
    return Catalogue(locale=document.pop(LOCALE), texts=document)


def read_catalogue(path: Path) -> Catalogue:
    """Read a site's own catalogue; what it lacks, the one that ships has.

    Raises:
        ConfigError: the file cannot be read, is no catalogue, names an unknown locale, has an unknown key, or a text
            lacks a placeholder of the English one, or has one that is unknown or broken.
    """
    document = _read(path)
    locale = document.pop(LOCALE, None)
    if not isinstance(locale, str) or not _is_locale(locale):
        msg = f"{path.name}: {LOCALE} is the tag of a known language, such as de or pt-BR, got {locale!r}"
        raise ConfigError(msg)
    shipped = english().texts
    if unknown := [key for key in document if key not in shipped]:
        msg = (
            f"{path.name} has unknown keys: {_named(unknown)}. Remove them, or correct them by en.json of this version"
        )
        raise ConfigError(msg)
    for key, text in document.items():
        if fault := _fault(text, shipped[key]):
            msg = f"{path.name}, {key}: {fault}"
            raise ConfigError(msg)
    missing = "; ".join(_missing(document, _categories_of(locale)))
    return Catalogue(locale=locale, texts=document, fallback=english(), missing=missing)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path.name}: {error.strerror}. Give a catalogue with --messages"
        raise ConfigError(msg) from error
    if len(content) > _MOST_BYTES:
        msg = f"{path.name} is larger than {_MOST_BYTES >> 20} MiB. A copy of en.json has far less"
        raise ConfigError(msg)
    try:
        document = json.loads(content, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        msg = f"{path.name} is no catalogue: {error}. It is JSON in UTF-8, as en.json is"
        raise ConfigError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path.name} is no catalogue: it is one JSON object of texts by key, as en.json is"
        raise ConfigError(msg)
    return document


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if repeated := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
        msg = f"it has these keys twice: {_named(repeated)}"
        raise ValueError(msg)
    return dict(pairs)


def _fault(text: Any, english_text: Text) -> str:
    """What is wrong with a text, "" if nothing is. A plural form may leave {count} out, as in "one slice"."""
    if isinstance(english_text, str):
        if not isinstance(text, str):
            return "it is one text, without plural forms"
        return _placeholder_fault(text, _placeholders(english_text), may_lack=frozenset())
    if not isinstance(text, Mapping) or not all(isinstance(form, str) for form in text.values()):
        return f"it is an object of texts by plural form: {', '.join(_CATEGORIES)}"
    if unknown := [name for name in text if name not in _CATEGORIES]:
        return f"there is no plural form {_named(unknown)}. Known are: {', '.join(_CATEGORIES)}"
    if "other" not in text:
        return "the plural form other is missing"
    wanted = _placeholders(english_text["other"])
    faults = ((name, _placeholder_fault(form, wanted, may_lack=frozenset({"count"}))) for name, form in text.items())
    return next((f"{fault} (plural form {name})" for name, fault in faults if fault), "")


def _placeholder_fault(text: str, wanted: frozenset[str], *, may_lack: frozenset[str]) -> str:
    if re.search("[\ud800-\udfff]", text):  # JSON may have it, and no answer in UTF-8 can
        return (
            "it has half of a character: an escape from \\ud800 to \\udfff without its other half. Write the character"
        )
    if re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
        return "a { or } belongs to no placeholder: placeholders are written as {name}"
    found = _placeholders(text)
    if not text.strip():
        return "it is empty. Remove the key, and the English text is shown"
    if unknown := sorted(found - wanted):
        return f"unknown placeholder {_braced(unknown)}. Known are: {_braced(sorted(wanted)) or 'none'}"
    if lacking := sorted(wanted - found - may_lack):
        return f"it lacks the placeholder {_braced(lacking)}"
    return ""


def _missing(document: Mapping[str, Any], categories: frozenset[str]) -> Iterator[str]:
    """Yield what a catalogue lacks: keys, and plural forms that its language has."""
    if keys := [key for key in english().texts if key not in document]:
        yield f"{len(keys)} texts, shown in English: {_named(keys)}"
    forms = [
        f"{name} of {key}"
        for key, text in document.items()
        if not isinstance(text, str)
        for name in _CATEGORIES
        if name in categories and name not in text
    ]
    if forms:
        yield f"{len(forms)} plural forms, for which other stands: {_named(forms)}"


def _placeholders(text: str) -> frozenset[str]:
    return frozenset(_PLACEHOLDER.findall(text))


def _braced(names: list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _is_locale(tag: str) -> bool:
    from babel.core import UnknownLocaleError

    if not _TAG.fullmatch(tag):
        return False
    try:
        _locale_of(tag)
    except (ValueError, UnknownLocaleError):
        return False
    return True


def _categories_of(tag: str) -> frozenset[str]:
    return frozenset({*_locale_of(tag).plural_form.tags, "other"})


def _locale_of(tag: str) -> Any:
    """Babel's locale of a tag. Babel is imported when the first count is shown: most commands show none."""
    from babel import Locale

    return Locale.parse(tag, sep="-")
