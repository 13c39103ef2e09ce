"""Shell lines of the documentation work as typed: the command's own parser accepts them, make has their targets."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hemoscope.cli.commands import build_parser

REPOSITORY = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"^ *```(?:sh|bash|console)\b.*?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SEPARATORS = set("();<>|&")
LAUNCHERS = {"torchrun", "srun", "sudo", "do", "time"}
# The command of experiments/NAME.toml stands in the comment at its head, indented.
HEAD_COMMENT = re.compile(r"^# {2,}(\S.*)$", re.MULTILINE)
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((REPOSITORY / "docs").rglob("*.md"))
PARSER = build_parser()
EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.toml"))


def lines_of(page: Path) -> list[str]:
    """The shell lines of a page or of an experiment's head comment, continued lines joined."""
    blocks = (FENCED if page.suffix == ".md" else HEAD_COMMENT).findall(page.read_text())
    return "\n".join(blocks).replace("\\\n", " ").splitlines()


def commands_of(line: str) -> Iterator[list[str]]:
    """The simple commands of a line, as words: separated by ``|``, ``;``, ``&&`` and ``>``; comments are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    for word in lexer:
        if set(word) <= SEPARATORS:
            yield words
            words = []
        else:
            words.append(word)
    yield words


def arguments_of(words: list[str]) -> list[str] | None:
    """What follows ``hemoscope`` in a command that it starts, or that another program starts it in; else None."""
    places = [place for place, word in enumerate(words) if re.fullmatch(r"(\S*bin/)?hemoscope", word)]
    if not places or (places[0] > 0 and words[0] not in LAUNCHERS):
        return None
    return words[places[-1] + 1 :] if places[0] > 0 else words[1:]


def hemoscope_lines(page: Path) -> list[list[str]]:
    """The arguments of each ``hemoscope`` command of a page."""
    commands = (arguments_of(words) for line in lines_of(page) for words in commands_of(line))
    return [arguments for arguments in commands if arguments is not None]


def make_targets(page: Path) -> set[str]:
    commands = (words for line in lines_of(page) for words in commands_of(line) if words[:1] == ["make"])
    return {word for words in commands for word in words[1:] if not word.startswith("-") and "=" not in word}


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the parser says against a line; empty if it accepts it."""
    try:
        PARSER.parse_args(arguments)
    except SystemExit as end:  # --help and --version end with 0
        return f"hemoscope {shlex.join(arguments)}\n{capsys.readouterr().err}" if end.code else ""
    return ""


def with_lines(pages: list[Path]) -> list[Path]:
    return [page for page in pages if hemoscope_lines(page)]


@pytest.mark.parametrize("page", with_lines(PAGES + EXPERIMENTS), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_parser_accepts_every_command_of_a_page(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    complaints = [complaint(arguments, capsys) for arguments in hemoscope_lines(page)]
    assert not any(complaints), "\n".join(complaints)


def test_pages_name_only_targets_that_the_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {(target, page.name) for page in PAGES for target in make_targets(page)}
    assert named
    assert not {(target, page) for target, page in named if target not in targets}


@pytest.mark.parametrize(
    "line",
    [
        "hemoscope prepare table labels.csv --images DICOM --output cache/ours",
        ".venv/bin/hemoscope predict SCANS \\\n    --heat-map-folder findings  # continued",
        "make setup && torchrun --nproc-per-node=8 hemoscope train experiments/paper.toml",
    ],
)
def test_a_line_that_does_not_parse_is_found_wherever_it_stands(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Words.\n\n```sh\n# hemoscope comment\n{line}\n```\n")
    (arguments,) = hemoscope_lines(page)
    assert "usage: hemoscope" in complaint(arguments, capsys)


def test_redirected_piped_and_commented_lines_are_taken_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nhemoscope info > a.txt  # hemoscope b\nmake -s demo VENV=x; cat x | hemoscope info c\n"
        "useradd hemoscope\nsudo -u hemoscope /opt/bin/hemoscope users\nexport URL='postgresql://db/hemoscope'\n```\n"
    )
    assert hemoscope_lines(page) == [["info"], ["info", "c"], ["users"]]
    assert make_targets(page) == {"demo"}
