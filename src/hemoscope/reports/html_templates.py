"""Pages from Jinja2 templates: every text is escaped, and a name that the template misspells is an error.

Templates lie in the folder ``templates`` of the package that renders them. Jinja2 is imported when a page is made, not
before: most commands make none.
"""

import base64
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(package: str, template: str, **values: Any) -> str:
    """Fill a template of a package, for example ``render("hemoscope.reports", "study.html", study=study)``.

    In templates, the filter ``base64`` turns bytes into text for a ``data:`` address.

    Raises:
        jinja2.UndefinedError: the template names a value that it was not given.
    """
    return _environment(package).get_template(template).render(values)


def template_text(package: str, name: str) -> str:
    """A file of a package's ``templates`` as it is, for example a style sheet."""
    return files(package).joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment(package: str) -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = _base64
    return environment


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
