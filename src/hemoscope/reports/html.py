"""A study's report as one self-contained page: pictures inside, nothing fetched, no script; prints on A4."""

import base64
import hashlib
from html import escape

from hemoscope.reports.study_document import LabelLine, StudyDocument
from hemoscope.version import __version__

_STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--soft:#555;--page:#fff;--line:#d5d8dc;--note:#fff4e5;--edge:#b35900;
--immediate:#b00020;--prompt:#8a5000;--unsure:#1d4f91;--routine:#2e5e3e}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a9b0b8;--page:#15181c;--line:#343a41;--note:#2b2118;
--edge:#e08a2e;--immediate:#ff8a8a;--prompt:#f0b35e;--unsure:#9cc4ff;--routine:#8fd0a5}}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--page)}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}
.headline{font-size:1.15rem;font-weight:600;margin:.6rem 0 1rem}
.immediate{color:var(--immediate)}.prompt{color:var(--prompt)}.unsure{color:var(--unsure)}.routine{color:var(--routine)}
.note{border-left:4px solid var(--edge);background:var(--note);padding:.5rem .9rem;margin:.8rem 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:1rem 0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line)}td.number{text-align:right}
th.number{text-align:right}tr.present td{font-weight:600}tr.open td{color:var(--soft);font-style:italic}
figure{margin:1rem 0;break-inside:avoid}img{max-width:100%;height:auto;border-radius:.3rem}
figcaption,footer{color:var(--soft);font-size:.85rem}footer{margin-top:2.5rem}
@media print{body{margin:0;max-width:none}}
"""
# What a strict content policy must name so that this style, and no other, is applied.
STYLE_SHA256 = "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def findings_html(study: StudyDocument) -> str:
    """The whole page; every text from the study is escaped."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in study.facts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Head CT: suspected hemorrhage</title><style>{_STYLE}</style></head><body>\n"
        f'<h1>Head CT: suspected hemorrhage</h1>\n<p class="note">{escape(study.disclaimer)}</p>\n'
        f'<p class="headline {study.triage.value}">{escape(study.headline)}</p>\n<dl>{facts}</dl>\n'
        + "\n".join(part for part in (_labels(study.labels), *_lists(study), _pictures(study)) if part)
        + f"\n<footer>Hemoscope {escape(__version__)}. {escape(study.disclaimer)}</footer></body></html>\n"
    )


def _labels(lines: tuple[LabelLine, ...]) -> str:
    rows = "".join(
        f'<tr class="{_row_class(line)}"><td>{escape(line.name)}</td><td class="number">{escape(line.probability)}</td>'
        f'<td class="number">{escape(line.threshold)}</td><td>{escape(line.verdict)}</td>'
        f"<td>{escape(line.key_slices)}</td></tr>"
        for line in lines
    )
    head = '<th>Label</th><th class="number">Probability</th><th class="number">Threshold</th><th>Finding</th>'
    return f"<table><thead><tr>{head}<th>Key slices</th></tr></thead><tbody>{rows}</tbody></table>"


def _row_class(line: LabelLine) -> str:
    if not line.established:
        return "open"
    return "present" if line.present else "absent"


def _lists(study: StudyDocument) -> tuple[str, ...]:
    titled = (("What readers said", study.reader), ("To know when reading this", study.remarks))
    return tuple(
        f"<h2>{title}</h2><ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"
        for title, texts in titled
        if texts
    )


def _pictures(study: StudyDocument) -> str:
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, png in study.pictures
    )
    return f"<h2>Key slices</h2>{figures}" if figures else ""
