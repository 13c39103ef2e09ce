"""A certificate authority for tests."""

import subprocess
from pathlib import Path


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.certificate, self._key = folder, folder / "ca.pem", folder / "ca.key"
        subject = ("-subj", "/CN=site", "-days", 2, "-nodes", "-newkey", "rsa:2048")
        openssl("req", "-x509", *subject, "-keyout", self._key, "-out", self.certificate)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a node."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        openssl("req", "-new", "-subj", f"/CN={name}", "-nodes", "-newkey", "rsa:2048", "-keyout", key, "-out", request)
        authority = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", 2)
        openssl("x509", "-req", "-in", request, *authority, "-out", certificate)
        return certificate, key
