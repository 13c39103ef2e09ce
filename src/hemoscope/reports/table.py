"""Findings for a person at a terminal: triage first, then each label, what to look at, and what to keep in mind.

Colour only repeats what a word says. Text from files is shown literally, never as markup or terminal codes.
"""

from collections import Counter

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hemoscope.dicom.slices import Rejected, RejectedGroup, SliceRef, group_rejected
from hemoscope.dicom.wording import counted
from hemoscope.inference.findings import INCOMPLETE, Finding, StudyFindings, Triage
from hemoscope.labels import Hemorrhage
from hemoscope.reports.report import (
    PatientIdentity,
    Report,
    ReportedStudy,
    positions_known,
    printable,
    shown_probability,
    unread_words,
)
from hemoscope.version import DISCLAIMER

_TRIAGE = {
    Triage.IMMEDIATE: ("IMMEDIATE", "bold white on red", "a reader should look at once"),
    Triage.PROMPT: ("PROMPT", "bold black on yellow", "a reader should look ahead of the list"),
    Triage.UNSURE: ("UNSURE", "bold white on blue", "the model is unsure; a reader should look before routine studies"),
    Triage.ROUTINE: ("ROUTINE", "bold black on green", "nothing found that moves it up the list"),
}
_INCOMPLETE = ("INCOMPLETE", "bold black on yellow", "nothing found in what was read, which is not the whole head")
_BAR_CELLS = 6
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FEW = 5


def print_report(report: Report, console: Console) -> None:
    """Write the whole report to ``console``: studies, refused inputs, model and disclaimer."""
    for study in report.studies:
        console.print(_study(study))
        console.print()
    if not report.studies:
        console.print(Text("Nothing could be read.", style="bold red"))
    if len(report.studies) > 1:
        console.print(_overview(report))
        console.print()
    if report.rejected:
        console.print(_rejected(report.rejected))
        console.print()
    model = f"{report.model.name} {report.model.version} (sha256 {report.model.sha256[:12]}, {report.model.precision})"
    console.print(Text(printable(f"Model {model}"), style="dim"))
    console.print(Text(DISCLAIMER, style="bold"))


def short_uid(uid: str) -> str:
    """Return the last twelve characters of a UID: the end is where UIDs of one scanner differ.

    Examples:
        >>> short_uid("1.2.840.113619.2.55.3.604688119")
        '…3.604688119'

    """
    text = printable(uid)
    return text if len(text) <= 16 else "…" + text[-12:].lstrip(".")


def _overview(report: Report) -> Text:
    """Count the studies by triage: with many of them the first ones have left the screen."""
    counts = Counter(study.findings.triage for study in report.studies)
    words = ", ".join(f"{counts[triage]} {triage.value}" for triage in Triage if counts[triage])
    if incomplete := sum(not study.findings.complete for study in report.studies):
        words += f"; {incomplete} of them incomplete"
    return Text(f"{counted(len(report.studies), 'study')}: {words}", style="bold")


def _study(study: ReportedStudy) -> RenderableType:
    parts: list[RenderableType] = [_headline(study.findings)]
    if study.patient is not None:
        parts.append(_patient(study.patient))
    parts.extend((Text(), _labels(study.findings), Text(), *_remarks(study.findings)))
    return Group(*parts)


def _patient(patient: PatientIdentity) -> Text:
    fields = {"Patient": patient.name, "ID": patient.id, "date": patient.study_date}
    return Text("  ".join(f"{name} {printable(value) or '(none)'}" for name, value in fields.items()))


def _headline(study: StudyFindings) -> Text:
    word, style, meaning = _INCOMPLETE if study.urgency == INCOMPLETE else _TRIAGE[study.triage]
    count = len(study.slices)
    return Text.assemble(
        (f" {word} ", style),
        f" {meaning}\n",
        ("Study ", "bold"),
        short_uid(study.study_instance_uid),
        ("  series ", "bold"),
        short_uid(study.series_instance_uid),
        f"  {count} slice{'' if count == 1 else 's'}{'' if study.complete else ', incomplete'}",
    )


def _labels(study: StudyFindings) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Label", no_wrap=True)
    table.add_column("Probability", no_wrap=True)
    table.add_column("Threshold", no_wrap=True, justify="right")
    table.add_column("Finding")
    table.add_column("Key slices (mm)" if _show_mm(study) else "Key slices", no_wrap=True)
    for finding in study.findings:
        style = "bold" if finding.label is Hemorrhage.ANY else ""
        numbers = (_probability(finding), shown_probability(finding.threshold))
        table.add_row(
            finding.label.display,
            *numbers,
            _flag(finding),
            _places(finding.slices, study),
            style=style,
        )
    return table


def _probability(finding: Finding) -> Text:
    colour = ("red" if finding.established else "yellow") if finding.present else "bright_black"
    return Text.assemble(shown_probability(finding.probability), " ", (_bar(finding.probability), colour))


def _bar(share: float) -> str:
    eighths = round(share * _BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(_BAR_CELLS)


def _flag(finding: Finding) -> Text:
    if finding.established:
        return Text("Suspected", style="bold red") if finding.present else Text("Below threshold", style="bright_black")
    if finding.present:
        return Text("Not established,\nsuspected", style="yellow")
    return Text("Not established", style="bright_black")


def _places(key_slices: tuple[SliceRef, ...], study: StudyFindings) -> Text:
    """Two key slices a line, so that 80 columns never part a number from its position."""
    places = [_place(ref, study) for ref in key_slices]
    a_line = 2 if _show_mm(study) else len(places) or 1
    lines = (", ".join(places[start : start + a_line]) for start in range(0, len(places), a_line))
    return Text(",\n".join(lines), no_wrap=True, overflow="fold")


def _place(ref: SliceRef, study: StudyFindings) -> str:
    return f"{ref.number} ({study.slices[ref.index].position_mm:.1f})" if _show_mm(study) else str(ref.number)


def _show_mm(study: StudyFindings) -> bool:
    return positions_known(study) and all(one.position_mm is not None for one in study.slices)


def _remarks(study: StudyFindings) -> list[RenderableType]:
    remarks: list[RenderableType] = []
    if any(not finding.established for finding in study.findings):
        remarks.append(
            _point(
                "Not established: validation does not support this label. Suspected only together with any hemorrhage."
            )
        )
    if len(study.slices) > 1 and any(finding.slices for finding in study.findings):
        order = "from feet to head" if all(one.position_mm is not None for one in study.slices) else "as they came"
        remarks.append(_point(f"Slices are numbered {order}."))
    remarks.extend(_point(unread_words(one.count, one.message), one.code) for one in study.unread)
    remarks.extend(_point(note.message, note.code) for note in study.quality)
    remarks.extend(_slice_notes(study))
    for series in study.skipped_series:
        name = f"Series {short_uid(series.series_instance_uid)} was not read ({counted(series.instances, 'slice')})"
        remarks.append(_point(f"{name}: {series.reason}"))
    return remarks


def _slice_notes(study: StudyFindings) -> list[RenderableType]:
    """One line a kind of note: 200 slices with the same repair are one fact."""
    reported = {note.code for note in study.quality}
    pairs = ((note, one.ref.number) for one in study.slices for note in one.quality)
    found = [(note, number) for note, number in pairs if note.code not in reported]
    counts = Counter(note.code for note, _ in found)
    lines: list[RenderableType] = []
    for code, count in counts.items():
        numbers = [number for note, number in found if note.code == code]
        message = next(note.message for note, _ in found if note.code == code)
        which = f"slice {', '.join(map(str, numbers))}" if count <= _FEW else f"{count} of {len(study.slices)} slices"
        lines.append(_point(f"{message} [{which}]", code))
    return lines


def _point(message: str, code: str = "") -> RenderableType:
    text = Text(printable(message[:1].upper() + message[1:]))
    if code:
        text.append(f"  {printable(code)}", style="dim")
    return _bullet(text)


def _bullet(text: Text) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row("•", text)
    return Padding(grid, (0, 0, 0, 1))


def _rejected(rejected: tuple[Rejected, ...]) -> RenderableType:
    count = len(rejected)
    title = Text(f"{count} input{' was' if count == 1 else 's were'} refused", style="bold yellow")
    groups = group_rejected(rejected)
    lines = [_bullet(Text.assemble(_named(one), (f"  {printable(one.code)}", "dim"))) for one in groups]
    return Group(title, *lines)


def _named(one: RejectedGroup) -> Text:
    """Show inputs that were refused for the same reason on one line, their number and first names before it."""
    count = len(one.sources)
    return Text.assemble(
        f"{count} inputs: " if count > 1 else "", (printable(one.names), "bold"), ": ", printable(one.message)
    )
