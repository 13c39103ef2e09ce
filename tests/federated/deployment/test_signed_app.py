"""What runs at a site: the bundle is the stub alone, and Flower's own check of signatures is the judge."""

import io
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

import yaml
from flwr.supercore.fab import Fab
from flwr.supernode.start_client_internal import _verify_fab

from hemoscope.errors import FederationError
from hemoscope.federated.deployment.keys import make_keys, read_server_keys
from hemoscope.federated.deployment.signed_app import app_id, build_app, sign_app, stub_folder

# Flower's, on its own way to name files.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation") / "keys"
    make_keys(folder, servers=["localhost"], sites=["riverside"])
    return folder


@pytest.fixture(scope="module")
def signed(keys: Path) -> Fab:
    return sign_app(build_app(), read_server_keys(keys / "server").signing_key)


@pytest.fixture(scope="module")
def trusted(keys: Path) -> dict[str, str]:
    loaded: dict[str, str] = yaml.safe_load((keys / "sites/riverside/trusted.yaml").read_text())
    return loaded


def test_the_bundle_holds_the_stub_and_asks_for_no_installation() -> None:
    with zipfile.ZipFile(io.BytesIO(build_app())) as bundle:
        names = set(bundle.namelist())
        project = bundle.read("pyproject.toml").decode()
    assert names == {"pyproject.toml", "hemoscope_stub.py", ".info/CONTENT"}
    assert "dependencies = []" in project
    assert app_id() == "@hemoscope/hemoscope-federated"


def test_the_same_files_give_the_same_bytes() -> None:
    assert build_app() == build_app(stub_folder())


def test_a_folder_that_is_no_app_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="is no Flower app"):
        build_app(tmp_path)


def test_a_site_accepts_the_signed_app(signed: Fab, trusted: dict[str, str]) -> None:
    assert signed.verifications["valid_license"]
    assert _verify_fab(signed, trusted)


def test_a_site_refuses_an_app_that_was_changed_after_it_was_signed(signed: Fab, trusted: dict[str, str]) -> None:
    assert not _verify_fab(Fab(signed.hash_str, signed.content + b"\0", signed.verifications), trusted)


def test_a_site_refuses_an_app_that_another_federations_key_signed(
    signed: Fab, trusted: dict[str, str], tmp_path: Path
) -> None:
    make_keys(tmp_path / "other", servers=["localhost"], sites=["riverside"])
    other = sign_app(signed.content, read_server_keys(tmp_path / "other/server").signing_key)
    assert not _verify_fab(other, trusted)
    renamed = {next(iter(trusted)): next(iter(other.verifications.values())), "valid_license": "Valid"}
    assert not _verify_fab(Fab(signed.hash_str, signed.content, renamed), trusted)


def test_a_site_refuses_a_signature_whose_time_was_changed(keys: Path, signed: Fab, trusted: dict[str, str]) -> None:
    early = sign_app(signed.content, read_server_keys(keys / "server").signing_key, signed_at=1)
    name = next(iter(trusted))
    forged = early.verifications[name].replace('"signed_at": 1', '"signed_at": 2')
    assert _verify_fab(early, trusted)
    assert not _verify_fab(Fab(early.hash_str, early.content, {name: forged}), trusted)
