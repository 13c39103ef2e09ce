"""A study's report as one self-contained page: pictures inside, nothing fetched, no script; prints on A4."""

import base64
import hashlib

from hemoscope.reports.html_templates import render, template_text
from hemoscope.reports.study_report_content import StudyDocument
from hemoscope.version import __version__

_PACKAGE = "hemoscope.reports"
_STYLE = template_text(_PACKAGE, "study.css")
# What a strict content policy must name so that this style, and no other, is applied.
STYLE_SHA256 = "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def findings_html(study: StudyDocument) -> str:
    """The whole page; every text from the study is escaped."""
    return render(_PACKAGE, "study.html", study=study, t=study.catalogue.text, style=_STYLE, version=__version__)
