"""``hemoscope deidentify`` as typed: copies under pseudonyms, a key, a record, and named refusals."""

import json
import stat
from pathlib import Path

import pytest

from hemoscope.cli import main
from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.series_choice import choose_series
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A small series with a letter beside it."""
    write_series(make_phantom(seed=3, shape=(4, 64, 64)), tmp_path / "DOE^JANE")
    (tmp_path / "DOE^JANE" / "letter.txt").write_text("Dear colleague")
    return tmp_path / "DOE^JANE"


def copies(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*.dcm"))


def test_copies_are_read_like_the_originals(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deidentify", str(given), str(tmp_path / "out"), "--key", str(tmp_path / "site.key")]) == 4
    shown = capsys.readouterr()
    assert "4 files of 1 study of 1 patient written to out" in shown.out
    assert "site.key is a new key" in shown.out
    assert "Faces are not removed" in shown.out
    assert "refused (not_dicom)" in shown.err
    before, after = (
        read_series(archive, choose_series(archive.studies[0]).series)
        for archive in (open_archive(given), open_archive(tmp_path / "out"))
    )
    assert (before.volume.hounsfield == after.volume.hounsfield).all()
    assert before.quality == after.quality
    record = json.loads((tmp_path / "out" / "deidentification.json").read_text())
    assert (record["written"], record["refused"]) == (4, {"not_dicom": 1})
    assert "letter" not in json.dumps(record)
    assert "DOE" not in "".join(str(path) for path in (tmp_path / "out").rglob("*"))


def test_the_same_key_gives_the_same_pseudonyms_and_no_key_other_ones(given: Path, tmp_path: Path) -> None:
    key = tmp_path / "site.key"
    for name in ("one", "two"):
        main(["deidentify", str(given), str(tmp_path / name), "--key", str(key)])
    main(["deidentify", str(given), str(tmp_path / "three")])
    assert copies(tmp_path / "one") == copies(tmp_path / "two")
    assert not set(copies(tmp_path / "one")) & set(copies(tmp_path / "three"))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_an_interrupted_run_is_repeated_and_a_finished_one_is_not_overwritten(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["deidentify", str(given), str(tmp_path / "out"), "--key", str(tmp_path / "site.key")]
    main(command)
    (tmp_path / "out" / "deidentification.json").unlink()
    assert main(command) == 4
    assert len(copies(tmp_path / "out")) == 4
    assert main(command) == 2
    assert "holds de-identified files already" in capsys.readouterr().err


def test_two_images_under_one_uid_are_both_kept(given: Path, tmp_path: Path) -> None:
    write_series(make_phantom(seed=4, shape=(4, 64, 64)), tmp_path / "again")
    (tmp_path / "again").rename(given / "again")
    main(["deidentify", str(given), str(tmp_path / "out")])
    assert len(copies(tmp_path / "out")) == 8


def test_nothing_written_and_a_short_key_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    assert main(["deidentify", str(tmp_path / "letter.txt"), str(tmp_path / "out")]) == 3
    (tmp_path / "short").write_text("secret")
    assert main(["deidentify", str(tmp_path), str(tmp_path / "out2"), "--key", str(tmp_path / "short")]) == 2
    assert "holds 6 bytes" in capsys.readouterr().err
