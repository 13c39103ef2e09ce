"""The reading room reads the next series of a study, as ``hemoscope predict`` does, if the best one is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

from hemoscope.dicom.archive import open_archive
from hemoscope.inference.predictor import Predictor
from hemoscope.store.store import Store
from hemoscope.store.values import StudyState, StudySummary
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom


def test_the_next_series_is_stored_with_its_note_and_the_refusal_of_the_first(
    store: Store, submit: Callable[..., StudySummary], work: Callable[..., int], tmp_path: Path, predictor: Predictor
) -> None:
    head = make_phantom(seed=1, shape=(5, 64, 64))
    for path in write_series(head, tmp_path / "best"):
        dataset = pydicom.dcmread(path)
        dataset.RescaleIntercept = "0"
        dataset.save_as(path)
    write_series(head, tmp_path / "next", acquisition=Acquisition(series_number=2, convolution_kernel="H60s"))
    entry = submit(store, [path.read_bytes() for path in sorted(tmp_path.rglob("*.dcm"))])
    work(store)
    found = store.get(entry.study_id)
    assert found.state is StudyState.DONE
    (reading,) = predictor.predict(open_archive(tmp_path)).studies
    (study,) = found.findings["studies"]
    assert [note["code"] for note in study["quality"]] == [note.code for note in reading.findings.quality]
    assert study["quality"][0]["code"] == "series_refused"
    assert [one["code"] for one in found.findings["rejected"]] == ["implausible_hounsfield"]
    pixels = np.frombuffer(store.pixels(entry.study_id, 2), dtype="<i2").reshape(64, 64)
    assert (pixels == head.hounsfield[2]).all()
