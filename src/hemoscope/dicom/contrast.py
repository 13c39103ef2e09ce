"""Decides from a header whether a contrast agent was given, with negations and the words of several languages.

The attributes are those of the Contrast/Bolus module (PS3.3 C.7.6.4), and the descriptions of series, protocol and
study. A study that was scanned with and without contrast says nothing about one of its series.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from hemoscope.dicom.wording import without_accents

__all__ = ["ContrastEvidence", "stated_contrast", "states_contrast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastEvidence:
    """What a header says about contrast; empty or None where it says nothing.

    Attributes:
        agent: Contrast/Bolus Agent (0018,0010).
        coded: meanings of the Contrast/Bolus Agent Sequence (0018,0012), one for each item.
        administered: Contrast/Bolus Agent Administered (0018,9342): YES or NO.
        volume_ml: Contrast/Bolus Volume (0018,1041) or Total Dose (0018,1044), the larger one.
        ingredient: Contrast/Bolus Ingredient (0018,1048).
        series: Series Description (0008,103E).
        protocol: Protocol Name (0018,1030).
        study: Study Description (0008,1030).
    """

    agent: str = ""
    coded: tuple[str, ...] = ()
    administered: str = ""
    volume_ml: float | None = None
    ingredient: str = ""
    series: str = ""
    protocol: str = ""
    study: str = ""


def _any_of(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


# Text is compared in upper case and without accents; blanks replace all but letters, digits and "/", "+", "&", "-".
_AGENT = _any_of(
    *(
        r"CONTRAST\w*",
        r"KONTRAST\w*",
        "KM",
        "CM",
        "CE",
        "MDC",
        "PDC",
        "CIV",
        r"INJ\w*",
        "IV",
        "I V",
        r"GAD\w*",
        "ENHANCEMENT",
    ),
    r"INIETT\w*",
)
_WITHOUT = _any_of(
    *(
        "W ?/ ?O",
        "WO/?",
        "W-O",
        "W/OUT",
        "WITHOUT",
        "W O",
        "OHNE",
        "SANS",
        "PAS DE",
        "SIN",
        "SENZA",
        "SEM",
        "ZONDER",
        "UTEN",
    ),
    *("UTAN", "UDEN", "BEZ"),
)
_WITH = _any_of(
    "W ?/", "W", "WITH", "MIT", "AVEC", "CON", "COM", "MET", "MED", "NACH", "AFTER", "APRES", "POST", "DOPO"
)
_AND = r"(?: ?(?:/|&|\+|-|AND|UND|ET|Y|E|EN|OG|OCH|I) ?| )"
_NO_HARM = r"(?! (?:ADVERSE|ALLERG|COMPLIC|INCIDENT|REACT)\w*)"  # what the agent did not do
_BOTH = re.compile(
    _any_of(
        r"\bW ?/? ?W/?O\b",
        rf"\b{_WITH}(?: {_AGENT})?{_AND}{_WITHOUT}(?: {_AGENT}\b)?",
        rf"\b{_WITHOUT}(?: {_AGENT})?{_AND}{_WITH}\b",
        r"\bPRE ?(?:/|&|\+|AND|UND|ET|E|Y) ?POST\b",
    )
)
_NEGATIVE = re.compile(
    _any_of(
        rf"\b{_WITHOUT}\b(?! (?:MIP|3D|VRT?|MPR|TILT)\b){_NO_HARM}(?: ?(?:IV |I V )?{_AGENT}\b)?",
        rf"\bNON?[ -]?(?:IV )?(?:CON|CE|{_AGENT})\b",
        rf"\b(?:NO|KEIN|AUCUN|NESSUN|NINGUN|GEEN|IKKE|INTE|INGEN|EJ) (?:IV )?{_AGENT}\b",
        rf"\b(?:CONTRAST\w*|KM|KONTRAST\w*|AGENT|ORAL)[ -]*(?:NONE|NO|N|NEIN|N/A|YOK|AUCUN)\b{_NO_HARM}",
        r"\bO ?KM\b",
        r"\bKONTRASTSIZ\b",
        r"\b(?:UN|NON)[ -]?(?:ENHANCED|INFUSED)\b",
        r"\bS/ ?(?:C|CE|CONTRAST\w*|INJ\w*|IV|PDC|KM)\b",
        r"\b(?:NATIV|NATIVE|NATIVO|NATIVA|NATIF|PLAIN|NCCT|NECT|NCHCT|BASALE|BLANCO)\b",
        r"\bC-(?= |$)",
        r"\b(?:PRE|VOR|AVANT|BEFORE|PRIMA)[ -]?(?:DE |DU |DI )?(?:CON|CE|CONTRAST\w*|KM|INJ\w*|MDC|GAD)\b",
    )
)
_POSITIVE = re.compile(
    _any_of(
        rf"\b{_WITH} ?(?:IV )?{_AGENT}\b",
        r"\b(?:WITH|MIT|AVEC)$",
        r"\bW/$",
        rf"\b(?:{_AGENT}|CE)\+",
        r"\+ ?(?:C|CE|KM|CM|IV|MDC|CONTRAST\w*)(?= |$)",
        r"\bC ?\+",
        r"\bC/ ?(?:C|CONTRAST\w*)\b",
        r"\b(?:POST|NACH)[ -]?(?:CON|CE|CONTRAST\w*|KM|INJ\w*|GAD\w*|IV)\b",
        r"\bPOST(?:$| \d)",
        r"(?<!EDGE )\b(?:ENHANCED|INFUSED|KM|CE)\b",
        r"\b(?:CECT|CE[ -]?CT|CTA|CTV|CTP|ANGIO\w*|VENOGRA\w*|PERFUSION|ARTERIAL|VENOUS|PORTAL|BOLUS)\b",
        r"\b[1-9]\d* ?(?:CC|ML)\b",
        r"(?<!HIGH )(?<!LOW )\b[CK]ONTRAST(?!S)\w*",
    )
)
# Words of other scripts, in the words above; the rest of such a text is dropped.
_OTHER_SCRIPTS = (
    (re.compile("БЕЗ"), " WITHOUT "),
    (re.compile(r"КОНТРАСТ\w*"), " CONTRAST "),  # noqa: RUF001
    (re.compile(r"\bНЕТ?\b"), " NOT "),  # noqa: RUF001
    (re.compile("平扫|平掃|単純|单纯|非増強|非增强|非造影"), " PLAIN "),
    (re.compile("なし|無し|没有|无|無|未"), " NO "),
    (re.compile("造影剤?|对比剂|對比劑|增强|増強|碘\\w*"), " CONTRAST "),
)
# What an agent attribute holds when no agent was given.
_NO_AGENT = re.compile(
    _any_of(
        *(
            r"[/+ -]*",
            "N/?A",
            "N A",
            "N",
            "NO",
            "NON",
            "NOT",
            "NONE",
            "NIL",
            "NULL",
            "NIHIL",
            "NEIN",
            "FALSE",
            "NIENTE",
        ),
        *(
            r"0+(?: 0+)?(?: ?(?:CC|ML))?",
            "S ?C",
            "N ?C",
            "C ?-",
            "NUL",
            "OHNE",
            r"KEIN\w*",
            "SANS",
            "SIN",
            "SENZA",
            "GEEN",
            r"AUCUN\w*",
            r"NINGUN\w*",
        ),
        *(r"NESSUN\w*", "UNKNOWN", "UNBEKANNT", "W/?O", "W/OUT", "WITHOUT", r"NONE (?:GIVEN|USED|ADMIN\w*)"),
    )
)
_NOT_GIVEN = re.compile(r"^NO (?!.*IONIC)|\bNOT? (?:GIVEN|ADMIN\w*|USED|APPLICABLE)\b")


@lru_cache(maxsize=256)  # the slices of a series state the same
def stated_contrast(evidence: ContrastEvidence) -> str | None:
    """Return what the header says of a contrast agent that was given, or None.

    The agent attributes decide if they state an agent. If they deny one, only the series' own description can
    contradict. If they are empty, a volume decides, then the descriptions of series, protocol and study, in this order:
    the first that says either yes or no.

    Examples:
        >>> stated_contrast(ContrastEvidence(agent="W/O CONTRAST"))
        >>> stated_contrast(ContrastEvidence(series="4cc sec 150cc D3D on"))
        '4cc sec 150cc D3D on'
    """
    if evidence.administered.upper() == "NO":
        return None
    agents = [text for text in (evidence.agent, *evidence.coded) if _plain(text)]
    given = next((text for text in agents if _is_agent(text)), None)
    if given is not None:
        return given
    texts = [evidence.series] if agents else [evidence.series, evidence.protocol, evidence.study]
    if not agents and (evidence.volume_ml or 0) > 0 and states_contrast(evidence.series) is not False:
        return f"{evidence.volume_ml:g} ml"
    for text in texts:
        stated = states_contrast(text)
        if stated is not None:
            return text if stated else None
    return evidence.ingredient if not agents and _is_agent(evidence.ingredient) else None


def states_contrast(text: str) -> bool | None:
    """Whether a description says that contrast was given; None if it says nothing, or both.

    Examples:
        >>> [states_contrast(text) for text in ("HEAD W/O", "SCHAEDEL MIT KM", "HEAD W & W/O", "AXIAL 5.0")]
        [False, True, None, None]
    """
    plain = _plain(text)
    if _BOTH.search(plain):
        return None
    rest, denied = _NEGATIVE.subn(" ; ", plain)
    if _POSITIVE.search(rest):
        return None if denied else True
    return False if denied else None


def _is_agent(text: str) -> bool:
    """Whether the value of an agent attribute names an agent: any text that does not deny one."""
    plain = _plain(text)
    if _NO_AGENT.fullmatch(plain) or _NOT_GIVEN.search(plain):
        return False
    return states_contrast(text) is not False


def _plain(text: str) -> str:
    plain = without_accents(text)
    for words, translated in _OTHER_SCRIPTS:
        plain = words.sub(translated, plain)
    return re.sub(r"[^0-9A-Z/+&-]+", " ", plain).strip()
