"""What ``make docs`` changes in a page. The pages are written for a forge first, where any file can be linked."""

import posixpath
import re
from typing import Any

_FENCE = re.compile(r"^```(\w+) [a-z ]+$", re.MULTILINE)  # "sh runnable": a mark for the tests
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s:#]+)[^)\s]*\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Drop marks after a fence's language, and turn a link that leads out of docs/ into its text."""
    folder = posixpath.dirname(page.file.src_uri)

    def text_if_outside(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        return link[1] if target.startswith("../") else link[0]

    return _LINK.sub(text_if_outside, _FENCE.sub(r"```\1", markdown))
