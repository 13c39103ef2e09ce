"""What the evaluation page is made of: its style, tables and numbers as HTML."""

from collections.abc import Mapping, Sequence
from html import escape

# Light and dark by the reader's own setting; curves are drawn for paper, so they keep a white ground in both.
STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--soft:#595959;--page:#fff;--line:#ddd;--rule:#333;--stripe:#f6f7f8;
--note:#fff6ec;--edge:#b35900;--alarm:#fdecea;--alarm-edge:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e6e6e6;--soft:#a8a8a8;--page:#16181b;--line:#33373c;--rule:#8a8f96;
--stripe:#1d2024;--note:#2b2118;--edge:#e08a2e;--alarm:#34191a;--alarm-edge:#f2837b}}
body{font:16px/1.5 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--page)}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.4rem;margin-bottom:.5rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
.scroll>p{color:var(--soft);font-size:.9rem;margin:.2rem 0 .5rem}
th,td{padding:.3rem .7rem;text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;white-space:nowrap}td.words{text-align:left}
thead th{border-bottom:2px solid var(--rule)}tbody tr{border-bottom:1px solid var(--line)}
tbody tr:nth-child(even){background:var(--stripe)}small{color:var(--soft);display:block;white-space:nowrap}
.note{border-left:4px solid var(--edge);background:var(--note);padding:.5rem .9rem;margin:.8rem 0}
.warning{border-left:4px solid var(--alarm-edge);background:var(--alarm);padding:.6rem .9rem;margin:.8rem 0;
font-weight:600}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem;margin:.6rem 0 1.4rem}
figure{margin:0}figcaption{font-size:.85rem;line-height:1.35;margin-top:.3rem;overflow-wrap:anywhere}
.gallery img{width:100%;padding:0;background:#000;display:block}
.reasons{color:var(--soft);font-size:.9rem;margin:.5rem 0;padding-left:1.2rem}h3{font-size:1rem;margin:1.2rem 0 .4rem}
img{max-width:100%;height:auto;background:#fff;padding:.5rem;border:1px solid var(--line);border-radius:.4rem;
box-sizing:border-box}footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
"""


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = "") -> str:
    """A section with one table; cells are HTML already."""
    said = f"<p>{escape(note[0].upper() + note[1:])}</p>" if note else ""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<h2>{escape(title)}</h2><div class="scroll">{said}<table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def score_cell(score: Mapping[str, float] | None) -> str:
    """A score over its interval."""
    if score is None:
        return "&ndash;"
    return f"{score['value']:.4f}<small>{score['low']:.4f} to {score['high']:.4f}</small>"


def share_cell(value: float | None) -> str:
    """A point on a curve."""
    return "&ndash;" if value is None else f"{value:.4f}"


def threshold_cell(value: float | None) -> str:
    """Three significant digits: saturated networks need thresholds far below what four decimals show."""
    return "&ndash;" if value is None else f"{value:.3g}"
