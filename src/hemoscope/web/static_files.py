"""The files of the pages, under addresses that change with them, so that a browser fetches each of them once.

A page names ``/static/study.js``; it is sent with ``/static/DIGEST/study.js``, where the digest is of all files, and
with all modules that it will import: a browser would find them one import after the other.
"""

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hemoscope.messages.catalogue import Catalogue

if TYPE_CHECKING:
    from jinja2 import Environment

STATIC = Path(__file__).parent / "static"
# A page that leads to another fetches its modules and styles too, before they are needed.
_LEADS_TO = {"index.html": "study.html", "login.html": "index.html"}
_IMPORT = re.compile(r'^import [^;]*? from "\./([\w]+\.js)";', re.MULTILINE)
_SCRIPT = re.compile(r'<script type="module" src="/static/([\w]+\.js)"></script>')
_STYLE = re.compile(r'<link rel="stylesheet" href="(/static/[\w]+\.css)">')
_DIGEST = re.compile(r"\A[0-9a-f]{16}/")
_FOREVER = "public, max-age=31536000, immutable"


class VersionedFiles(StaticFiles):
    """Our own files, as a whole. Under the digest a browser keeps them; else it asks each time, mostly for a 304."""

    def __init__(self) -> None:
        """Serve ``STATIC``."""
        super().__init__(directory=STATIC)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the framework's errors about ranges would not be problems as all others are."""
        del MutableHeaders(scope=scope)["range"]
        await super().__call__(scope, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, with or without a digest before its name.

        A page of another version, still open after an upgrade, gets the file of this one, for this time alone.
        """
        kept = path.startswith(f"{files_digest()}/")
        response = await super().get_response(_DIGEST.sub("", path), scope)
        response.headers["Cache-Control"] = _FOREVER if kept else "no-cache"
        return response


@cache
def files_digest() -> str:
    """16 hexadecimal digits that change with any of the files."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def page_text(name: str, catalogue: Catalogue) -> str:
    """Return a page as it is sent: its texts, the addresses of this version's files, and every module that it needs.

    Pages with modules bring the catalogue along as data, a block that no browser runs.
    """
    text = _environment().get_template(name).render(t=catalogue.text, locale=catalogue.locale)
    pages = [name, *([_LEADS_TO[name]] if name in _LEADS_TO else [])]
    needed = dict.fromkeys(module for page in pages for module in modules_of(page))
    styles = [style for style in _STYLE.findall((STATIC / pages[-1]).read_text(encoding="utf-8")) if style not in text]
    links = (
        *(f'<link rel="modulepreload" href="/static/{module}">' for module in needed),
        *(f'<link rel="stylesheet" href="{style}" media="not all">' for style in styles),  # fetched, and not applied
    )
    text = text.replace("  </head>", "".join(f"    {link}\n" for link in links) + "  </head>")
    text = text.replace("/static/", f"/static/{files_digest()}/")
    return text.replace("  </head>", f"    {_data_block(catalogue)}\n  </head>") if needed else text


def _data_block(catalogue: Catalogue) -> str:
    """The catalogue as JSON; "<" is escaped, so that no text of it ends the block."""
    content = json.dumps(catalogue.document(), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="messages">{content}</script>'


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(STATIC), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )


def modules_of(page: str) -> tuple[str, ...]:
    """Return the modules that a page loads, each before those that it imports."""
    waiting, found = _SCRIPT.findall((STATIC / page).read_text(encoding="utf-8")), list[str]()
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found.append(name)
            waiting += _IMPORT.findall((STATIC / name).read_text(encoding="utf-8"))
    return tuple(found)
