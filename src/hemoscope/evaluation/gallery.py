"""The error gallery of the evaluation page: the worst misses and false alarms with their pictures."""

import base64
from collections.abc import Sequence
from html import escape

from hemoscope.evaluation.context import ErrorPicture
from hemoscope.labels import LABELS

_KINDS = {"missed": "Missed (worst false negatives)", "false alarm": "False alarms (worst false positives)"}
_ABOUT = (
    "Left the slice, cut as the model saw it, right where the model saw the label, from violet (a low local "
    "probability) to yellow (near 1). Wrong at the model's own operating points; the worst slice of a series stands "
    "for it. These are pictures of patients: pass this page on only as you would pass on the scans."
)


def gallery(errors: Sequence[ErrorPicture] | None) -> str:
    """The section as HTML; nothing where no images were at hand."""
    if errors is None:
        return ""
    parts = [
        f"<h3>{escape(label.display)}: {escape(words[0].lower() + words[1:])}</h3>"
        f'<div class="gallery">{"".join(map(_figure, shown))}</div>'
        for label in LABELS
        for kind, words in _KINDS.items()
        if (shown := [error for error in errors if error.label is label and error.kind == kind])
    ]
    found = "".join(parts) or "<p>No slice is wrong at the model's operating points.</p>"
    return f"<h2>The worst errors</h2><p>{escape(_ABOUT)}</p>{found}"


def _figure(error: ErrorPicture) -> str:
    known = ", ".join(label.display.lower() for label in error.shows) or "no hemorrhage"
    what = f"{error.label.display}, {error.kind}"
    words = f"probability {error.probability:.3g}, threshold {error.threshold:.3g}; labelled {known}; {error.window}"
    picture = base64.b64encode(error.jpeg).decode()
    return (
        f'<figure><img alt="{escape(f"{what}: slice {error.image_id} and its heat map")}" '
        f'src="data:image/jpeg;base64,{picture}">'
        f"<figcaption><strong>{escape(error.image_id)}</strong><br>{escape(words)}</figcaption></figure>"
    )
