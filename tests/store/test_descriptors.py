"""A worker that may open no more files: its site is at fault, not the study, and nothing of it is left out."""

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hemoscope.errors import StoreError
from hemoscope.inference.predictor import Predictor
from hemoscope.store.reading import UploadReader
from hemoscope.store.store import Store
from hemoscope.store.values import StudyState, StudySummary
from hemoscope.store.worker import work_once


@pytest.mark.parametrize("name", ["000003", "volume.npy", "source"])
def test_too_many_open_files_cost_no_attempt_and_no_slice(
    store: Store,
    submit: Callable[..., StudySummary],
    series: list[bytes],
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    entry = submit(store, series)
    reader = UploadReader(store, predictor, keep_identity=False, deidentify=False)

    def refused(right: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if name in Path(path).name:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return right(path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused(Path.open))
        patch.setattr(os, "open", refused(os.open))
        patch.setattr(os, "listdir", refused(os.listdir))
        for _ in range(store.jobs.attempts + 1):
            with suppress(StoreError):
                work_once(store, reader, secrets.token_hex(16))
            assert store.get(entry.study_id).state is not StudyState.FAILED
    assert work_once(store, reader, secrets.token_hex(16))
    found = store.get(entry.study_id)
    assert (found.state, found.instances) == (StudyState.DONE, len(series))
    assert found.findings is not None
    assert found.findings["rejected"] == []
