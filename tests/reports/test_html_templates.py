"""Templates escape what they are given, refuse what they are not, and cost nothing until a page is made."""

import base64
import hashlib
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from hemoscope.reports.findings_json import findings_document
from hemoscope.reports.html_templates import render, template_text
from hemoscope.reports.report import Report
from hemoscope.reports.study_report_content import study_document
from hemoscope.reports.study_report_html import STYLE_SHA256, findings_html


def test_a_value_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="study"):
        render("hemoscope.reports", "study.html", style="", version="1")


def test_the_style_in_the_page_is_the_one_whose_hash_the_content_policy_names(report: Report) -> None:
    page = findings_html(study_document(findings_document(report)))
    style = page[page.index("<style>") + len("<style>") : page.index("</style>")]
    assert style == template_text("hemoscope.reports", "study.css")
    assert "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() == STYLE_SHA256


def test_every_text_is_escaped_in_text_and_in_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pages_package"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "templates" / "one.html").write_text('<p title="{{ words }}">{{ words }}</p>{{ picture | base64 }}')
    monkeypatch.syspath_prepend(tmp_path)
    page = render("pages_package", "one.html", words="""<b a="1">'&""", picture=b"\x00\xff")
    escaped = "&lt;b a=&#34;1&#34;&gt;&#39;&amp;"
    assert page == f'<p title="{escaped}">{escaped}</p>AP8='


def test_jinja_is_imported_with_the_first_page_only() -> None:
    code = "import sys, hemoscope.reports.study_report_html; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_templates_are_part_of_the_package() -> None:
    names = {path.name for path in files("hemoscope.reports").joinpath("templates").iterdir()}
    assert {"study.html", "study.css"} <= names
