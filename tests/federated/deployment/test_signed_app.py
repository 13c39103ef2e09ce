"""What runs at a site: the bundle is the stub alone, and Flower's own check of signatures is the reference."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

import yaml
from flwr.supercore.fab import Fab
from flwr.supernode.start_client_internal import _verify_fab

from hemoscope.errors import FederationError
from hemoscope.federated.deployment.authority import make_keys, sign_again
from hemoscope.federated.deployment.keys import read_server_keys, read_signing_key
from hemoscope.federated.deployment.signed_app import app_id, build_app, read_signed_app, sign_app, stub_folder


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation") / "keys"
    make_keys(folder, servers=["localhost"], sites=["riverside"])
    return folder


@pytest.fixture(scope="module")
def signed(keys: Path) -> Fab:
    return read_signed_app(keys / "server", read_server_keys(keys / "server").signs)


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
    other = sign_app(signed.content, read_signing_key(tmp_path / "other/authority"))
    assert not _verify_fab(other, trusted)
    renamed = {next(iter(trusted)): next(iter(other.verifications.values())), "valid_license": "Valid"}
    assert not _verify_fab(Fab(signed.hash_str, signed.content, renamed), trusted)


def test_a_site_refuses_a_signature_whose_time_was_changed(keys: Path, signed: Fab, trusted: dict[str, str]) -> None:
    early = sign_app(signed.content, read_signing_key(keys / "authority"), signed_at=1)
    name = next(iter(trusted))
    forged = early.verifications[name].replace('"signed_at": 1', '"signed_at": 2')
    assert _verify_fab(early, trusted)
    assert not _verify_fab(Fab(early.hash_str, early.content, {name: forged}), trusted)


@pytest.fixture
def server(keys: Path, tmp_path: Path) -> Path:
    """The server's folder alone, on a machine of its own."""
    return shutil.copytree(keys / "server", tmp_path / "server")


def start(server: Path, app: Path | None = None) -> Fab:
    """What a server does first."""
    return read_signed_app(server, read_server_keys(server).signs, app)


def test_a_server_starts_with_the_signature_alone(server: Path, trusted: dict[str, str]) -> None:
    signed = start(server)
    assert signed.content == build_app()
    assert _verify_fab(signed, trusted)
    private = [path.name for path in server.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert private == ["server.key"]


def test_after_an_update_that_changes_the_stub_the_app_is_signed_again_where_the_authority_is(
    keys: Path, server: Path, tmp_path: Path
) -> None:
    updated = shutil.copytree(stub_folder(), tmp_path / "updated", ignore=shutil.ignore_patterns("__pycache__"))
    (updated / "hemoscope_stub.py").write_text((updated / "hemoscope_stub.py").read_text() + "# newer\n")
    with pytest.raises(FederationError, match=r"is not that of the hemoscope .*: hemoscope federated sign FOLDER"):
        start(server, updated)
    offline = tmp_path / "offline"
    shutil.copytree(keys / "authority", offline / "authority")
    shutil.copy(sign_again(offline, app=updated), server)
    assert start(server, updated).content == build_app(updated)


def test_without_the_authority_nothing_is_signed(server: Path) -> None:
    with pytest.raises(FederationError, match=r"authority/signing\.key is not here\. Sign where the federation's"):
        sign_again(server.parent)


def test_an_app_that_was_not_signed_is_not_served(server: Path) -> None:
    (server / "app.json").unlink()
    with pytest.raises(FederationError, match=r"the app is not signed\. Sign again"):
        start(server)


def test_a_signature_by_another_federation_is_not_served_even_under_this_ones_name(
    server: Path, tmp_path: Path, trusted: dict[str, str]
) -> None:
    make_keys(tmp_path / "other", servers=["localhost"], sites=["riverside"])
    shutil.copy(tmp_path / "other/server/app.json", server)
    with pytest.raises(FederationError, match=r"app\.json holds no signature by this federation's key"):
        start(server)
    foreign = json.loads((server / "app.json").read_text())
    foreign["verifications"] = {next(iter(trusted)): next(iter(foreign["verifications"].values()))}
    (server / "app.json").write_text(json.dumps(foreign))
    with pytest.raises(FederationError, match="not by this federation's key, or was changed"):
        start(server)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": "0", "verifications": []}'])
def test_a_file_that_is_no_record_of_a_signature_is_refused(server: Path, text: str) -> None:
    (server / "app.json").write_text(text)
    with pytest.raises(FederationError, match=r"app\.json holds no signature"):
        start(server)
