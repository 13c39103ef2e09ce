"""Pages are written for a forge; what `make docs` changes in them before they are built."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def built(markdown: str, *, page: str = "how-to/page.md") -> str:
    spec = spec_from_file_location("mkdocs_hooks", REPOSITORY / "mkdocs_hooks.py")
    assert spec
    assert spec.loader
    hooks = module_from_spec(spec)
    spec.loader.exec_module(hooks)
    text = hooks.on_page_markdown(markdown, page=SimpleNamespace(file=SimpleNamespace(src_uri=page)))
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("```sh runnable\nls\n```", "```sh\nls\n```"),
        ("```sh\nls\n```", "```sh\nls\n```"),
        ("see [`the file`](../../src/x.py) there", "see `the file` there"),
        ("[in](../reference/a.md#b), [on](#b), [out](https://a.example/../../c)",) * 2,
        ("![picture](../images/demo.png)",) * 2,
    ],
)
def test_marks_are_dropped_and_links_out_of_the_documentation_become_text(markdown: str, expected: str) -> None:
    assert built(markdown) == expected


def test_a_page_at_the_top_reaches_the_repository_in_one_step() -> None:
    assert built("[README](../README.md), [a](tutorial/a.md)", page="index.md") == "README, [a](tutorial/a.md)"
