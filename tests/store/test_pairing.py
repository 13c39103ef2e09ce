"""A folder of studies and a database that do not belong together never meet: neither loses anything."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hemoscope.errors import ConfigError
from hemoscope.store import tables
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store, open_store
from hemoscope.store.values import StudySummary

Submit = Callable[..., StudySummary]
Query = Callable[..., list[Any]]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forget_ids(store: Store, query: Query) -> None:
    """Make a pair as it was before there were ids."""
    query(store, tables.pairing.delete())
    (store.folder.root / ".store-id").unlink()


def test_a_new_pair_gets_one_id_that_stays(opened: Callable[..., Store], query: Query) -> None:
    first, second = opened(), opened()
    assert first.store_id == second.store_id == first.folder.store_id()
    assert query(first, tables.pairing.select()) == [(first.store_id,)]
    assert len(first.store_id) == 32


def test_an_empty_database_does_not_start_on_a_folder_of_studies(store: Store, submit: Submit, tmp_path: Path) -> None:
    for _ in range(3):
        submit(store, [b"the only copy"])
    before = content(store.folder.root)
    words = (
        r"storage folder storage and database typo.sqlite3 do not belong together: .*3 uploads, .* lists none.*--data"
    )
    for _ in range(2):
        with pytest.raises(ConfigError, match=words):
            open_store(Settings(database=f"sqlite:///{tmp_path}/typo.sqlite3", storage=store.folder.root))
    assert content(store.folder.root) == before


def test_an_empty_folder_does_not_start_on_a_database_of_studies(
    store: Store, submit: Submit, url: str, tmp_path: Path
) -> None:
    submit(store, [b"x"])
    with pytest.raises(ConfigError, match=r"the folder holds no upload, and the database lists 1.*not mounted"):
        open_store(Settings(database=url, storage=tmp_path / "not-mounted"))
    assert store.studies()[1] == 1


def test_two_sites_are_not_mixed(store: Store, submit: Submit, url: str, tmp_path: Path) -> None:
    submit(store, [b"x"])
    other = Settings(database=f"sqlite:///{tmp_path}/other.sqlite", storage=tmp_path / "other")
    open_store(other).close()
    with pytest.raises(
        ConfigError, match=r"other .* do not belong together: the folder holds another id .[0-9a-f]{8}."
    ):
        open_store(Settings(database=url, storage=tmp_path / "other"))


def test_a_pair_from_before_there_were_ids_is_adopted(
    opened: Callable[..., Store], submit: Submit, query: Query
) -> None:
    store = opened()
    entry = submit(store, [b"x"])
    with store.begin_upload() as never_accepted:
        never_accepted.undecided = True
    forget_ids(store, query)
    again = opened()
    assert again.folder.store_id() == again.store_id
    assert again.get(entry.study_id).study_id == entry.study_id


def test_a_folder_with_a_study_that_the_database_does_not_list_is_not_adopted(
    opened: Callable[..., Store], submit: Submit, query: Query
) -> None:
    store = opened()
    submit(store, [b"x"])
    stranger = store.folder.study("a" * 32, "b" * 32)
    stranger.mkdir(parents=True)
    (stranger / "volume.npy").write_bytes(b"pixels")
    forget_ids(store, query)
    with pytest.raises(ConfigError, match=r"2 uploads, of which the database lists 1\. Nothing was changed"):
        opened()


def test_an_older_backup_of_the_database_knows_its_folder(
    opened: Callable[..., Store], submit: Submit, query: Query
) -> None:
    store = opened()
    submit(store, [b"x"])
    query(store, tables.pairing.delete())
    assert opened().store_id == store.store_id


def test_a_start_that_was_cut_short_between_the_two_ids_is_completed(
    opened: Callable[..., Store], query: Query
) -> None:
    store = opened()
    query(store, tables.pairing.delete())
    assert opened().store_id == store.store_id
    (store.folder.root / ".store-id").unlink()
    assert opened().store_id == store.store_id


def test_a_copy_of_both_is_a_pair(tmp_path: Path, submit: Submit) -> None:
    settings = Settings(storage=tmp_path / "site")
    store = open_store(settings)
    submit(store, [b"x"])
    store.close()
    shutil.copytree(tmp_path / "site", tmp_path / "copy", copy_function=shutil.copy)
    copy = open_store(Settings(storage=tmp_path / "copy"))
    assert copy.studies()[1] == 1
    copy.close()
