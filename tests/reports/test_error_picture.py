"""A label is looked for in the window that shows it."""

import pytest

from hemoscope.inference.windows import BRAIN, SUBDURAL
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.reports.error_picture import window_of


@pytest.mark.parametrize("label", LABELS)
def test_blood_beside_bone_is_shown_in_the_subdural_window(label: Hemorrhage) -> None:
    beside_bone = label in {Hemorrhage.EPIDURAL, Hemorrhage.SUBDURAL}
    assert window_of(label) == (("subdural window", SUBDURAL) if beside_bone else ("brain window", BRAIN))
