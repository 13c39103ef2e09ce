"""A comparison as people read it: tables in Markdown, and pictures as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from hemoscope.evaluation.intervals import FEWEST_PATIENTS
from hemoscope.evaluation.plots import COLOURS, new_figure, png_bytes
from hemoscope.federated.simulation.arm_scores import LEVELS
from hemoscope.files import write_bytes, write_text
from hemoscope.labels import LABELS
from hemoscope.training.run_folder import write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE, REPORT = "table.md", "report.json"
_ANY = LABELS[0].value
_HEADS = {"slice": "AUROC by slice", "study": "AUROC by study"}


def write_comparison(report: Mapping[str, Any], output: Path) -> tuple[Path, ...]:
    """Write ``report.json``, ``table.md`` and the pictures that the report has the numbers for.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / REPORT, report)
    write_text(output / TABLE, tables(report))
    paths = [output / REPORT, output / TABLE]
    for name, picture in draw(report).items():
        paths.append(write_bytes(output / f"{name}.png", picture))
    return tuple(paths)


def tables(report: Mapping[str, Any]) -> str:
    """All numbers with their intervals as Markdown tables."""
    sections = [f"95% intervals by patient: {report['intervals']['method']}."]
    for level in LEVELS:
        labels = report["levels"][level]
        sections.append(_section(_HEADS[level], "arm", labels, "arms"))
        sections.append(_section(f"Differences of {_HEADS[level]}", "difference", labels, "differences"))
    sections += [_site_table(report, level) for level in LEVELS]
    return "\n\n".join(sections) + "\n"


def shown(found: Mapping[str, float | None] | None, *, signed: bool = False) -> str:
    """A value with its interval, or a dash where one of them cannot be measured."""
    if found is None:
        return "-"
    style = "+.3f" if signed else ".3f"
    if found["low"] is None:
        return f"{found['value']:{style}} (-)"
    return f"{found['value']:{style}} ({found['low']:{style}} to {found['high']:{style}})"


def shows_noninferiority(report: Mapping[str, Any], level: str, arm: str) -> bool | None:
    """Whether the interval of an arm less pooled lies above minus the margin, for ``any``; None without one."""
    found = report["levels"][level][_ANY]["differences"].get(f"{arm} - pooled")
    return None if found is None or found["low"] is None else found["low"] > -report["margin"]


def verdict(report: Mapping[str, Any], level: str, arm: str) -> dict[str, bool]:
    """Whether a federated arm keeps what was fixed beforehand, for ``any``: point estimates alone decide."""
    found = report["levels"][level][_ANY]["differences"]
    wanted = {"pooled": (f"{arm} - pooled", -report["margin"]), "mean of alone": (f"{arm} - mean of alone", 0.0)}
    return {
        against: found[name]["value"] >= least if against == "pooled" else found[name]["value"] > least
        for against, (name, least) in wanted.items()
        if found.get(name) is not None
    }


def draw(report: Mapping[str, Any]) -> dict[str, bytes]:
    """Pictures by name without ending: arms with intervals, curves over rounds, and AUROC against epsilon."""
    pictures = {"arms": _arms(report)}
    if any(curve for parts in report["curves"].values() for curve in parts.values()):
        pictures["rounds"] = _rounds(report)
    if any(arm["epsilon"] is not None for arm in report["arms"].values()):
        pictures["epsilon"] = _epsilon(report)
    return pictures


def _section(title: str, first: str, labels: Mapping[str, Any], kind: str) -> str:
    heads = [f"{label.value} ({labels[label.value]['positive_patients']})" for label in LABELS]
    rows = [
        [name, *(shown(labels[label.value][kind][name], signed=kind == "differences") for label in LABELS)]
        for name in labels[_ANY][kind]
    ]
    count = labels[_ANY]
    note = f"{count['rows']:,} rows of {count['patients']} patients; in brackets after a label, patients who have it."
    if kind == "differences":
        note += f" (-): fewer than {FEWEST_PATIENTS} patients in a class, or no case ranked differently."
    return f"### {title}\n\n{note}\n\n{_markdown([first, *heads], rows)}"


def _site_table(report: Mapping[str, Any], level: str) -> str:
    rows = []
    for site in report["sites"]:
        found = site["levels"][level][_ANY]
        rows.append(
            [site["site"], f"{found['positive_patients']} of {found['patients']}", *map(shown, found["arms"].values())]
        )
    heads = ["site", "patients with any", *report["levels"][level][_ANY]["arms"]]
    return f"### {_HEADS[level]} of `any`, each site's own patients\n\n{_markdown(heads, rows)}"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])


def _arms(report: Mapping[str, Any]) -> bytes:
    """Each arm's AUROC of ``any`` with its interval, one panel a level."""
    figure = new_figure(9.6, 1.4 + 0.42 * len(report["arms"]))
    for place, level in enumerate(LEVELS, start=1):
        axes = figure.add_subplot(1, 2, place)
        _dots(axes, report["levels"][level][_ANY]["arms"])
        axes.set(title=f"{_HEADS[level]}, any", xlabel="AUROC (95% interval)")
    return png_bytes(figure)


def _dots(axes: "Axes", arms: Mapping[str, Mapping[str, float] | None]) -> None:
    names = list(reversed(list(arms)))
    for row, found in enumerate(arms[name] for name in names):
        if found is not None:
            value, low, high = found["value"], found["low"], found["high"]
            axes.plot([low, high], [row, row], color=COLOURS[2], linewidth=1.6)
            axes.plot([value], [row], "o", color=COLOURS[2])
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="x", alpha=0.3)


def _rounds(report: Mapping[str, Any]) -> bytes:
    """Loss of the sites over rounds, and AUROC of ``any`` from pooled histograms where several rounds were measured."""
    curves = [curve for parts in report["curves"].values() for curve in parts.values()]
    panels = [("loss", "mean loss of the sites")]
    if any(len(_points(curve, "auroc")) > 1 for curve in curves):
        panels.append(("auroc", "pooled AUROC of any, by slice"))
    figure = new_figure(4.8 * len(panels), 4.0)
    for place, (kind, title) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for colour, (arm, parts) in zip(COLOURS * 10, report["curves"].items(), strict=False):
            _lines(axes, arm, [_points(curve, kind) for curve in parts.values()], colour)
        axes.set(title=title, xlabel="round")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return png_bytes(figure)


def _lines(axes: "Axes", arm: str, curves: Sequence[Mapping[int, float]], colour: str) -> None:
    """One thin line a part and the mean of them all, where they have the same rounds."""
    for curve in curves:
        axes.plot(list(curve), list(curve.values()), color=colour, alpha=0.3, linewidth=0.8)
    shared = [number for number in curves[0] if all(number in curve for curve in curves)] if curves else []
    if shared:
        means = [mean(curve[number] for curve in curves) for number in shared]
        axes.plot(shared, means, "o-", color=colour, linewidth=1.8, markersize=3.5, label=arm)


def _points(curve: Sequence[Mapping[str, Any]], kind: str) -> dict[int, float]:
    """A curve by round; of a round that was tried again the last try."""
    found = {}
    for record in curve:
        value = _loss(record) if kind == "loss" else _auroc(record)
        if value is not None:
            found[int(record["number"])] = value
    return found


def _loss(record: Mapping[str, Any]) -> float | None:
    losses = record.get("losses") or {}
    return mean(losses.values()) if losses else None


def _auroc(record: Mapping[str, Any]) -> float | None:
    found = ((record.get("scores") or {}).get("auroc") or {}).get("slices", {}).get(_ANY)
    return None if found is None else float(found["value"])


def _epsilon(report: Mapping[str, Any]) -> bytes:
    """AUROC of ``any`` against epsilon; an arm without noise is the line at the right's level."""
    figure = new_figure(6.4, 4.6)
    axes = figure.add_subplot()
    for place, level in enumerate(LEVELS):
        arms = report["levels"][level][_ANY]["arms"]
        private = sorted(
            (arm["epsilon"], arms[name]) for name, arm in report["arms"].items() if arm["epsilon"] is not None
        )
        private = [(epsilon, found) for epsilon, found in private if found is not None]
        values = [found["value"] for _, found in private]
        spread = [
            [found["value"] - found["low"] for _, found in private],
            [found["high"] - found["value"] for _, found in private],
        ]
        colour = COLOURS[2 * place + 1]
        axes.errorbar(
            [epsilon for epsilon, _ in private],
            values,
            yerr=spread,
            fmt="o-",
            color=colour,
            capsize=3,
            label=_HEADS[level],
        )
        if (plain := arms.get("federated")) is not None:
            axes.axhline(plain["value"], color=colour, linestyle=":", label=f"{_HEADS[level]}, no noise")
    axes.set(xlabel="epsilon (a whole site is protected)", ylabel="AUROC of any", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return png_bytes(figure)
