"""A site file: where one hospital's data lie, and what it lets a federation do. The file never leaves the site."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.data.cache import Cache, open_cache
from hemoscope.errors import ConfigError, DataError
from hemoscope.federated.settings.names import check_name
from hemoscope.training.toml_config import build_record, read_tables

if TYPE_CHECKING:
    from hemoscope.federated.settings.federation import Federation  # brings torch along

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What this site refuses, whatever the federation asks.

    Attributes:
        secure_aggregation: refuse to train without it.
        privacy: refuse to train without noise.
        min_sites: refuse to train with fewer sites.
        least_cell: fewest slices or patients of a class in a cell of a histogram that leaves.
        max_epochs: most epochs of one round.
        max_evaluations: how often histograms of one part leave at most.
        allow_experiments: names of the experiments that may run here; empty allows all. A name is the server's word.
        agreed: fingerprints of the federations that this site takes part in (``Federation.fingerprint``), which no
            server can change a setting of; empty takes part in any that the rest of the policy allows.
    """

    secure_aggregation: bool = False
    privacy: bool = False
    min_sites: int = 2
    least_cell: int = 5
    max_epochs: int = 50
    max_evaluations: int = 100
    allow_experiments: tuple[str, ...] = ()
    agreed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject numbers below 1, and what is no fingerprint."""
        for name in ("min_sites", "least_cell", "max_epochs", "max_evaluations"):
            value = getattr(self, name)
            if value < 1:
                msg = f"policy.{name} must be at least 1, got {value}"
                raise ConfigError(msg)
        wrong = [text for text in self.agreed if not _FINGERPRINT.fullmatch(text)]
        if wrong:
            remedy = "Copy it from: hemoscope federated check FEDERATION.toml"
            msg = f"policy.agreed {wrong[0]!r:.80} is no fingerprint of 64 small hexadecimal digits. {remedy}"
            raise ConfigError(msg)

    def refusal(self, federation: "Federation", *, sites: int) -> str | None:
        """Why this site takes no part in training with so many sites: one sentence, or None where it does."""
        known = not self.agreed or federation.fingerprint in self.agreed
        allowed = not self.allow_experiments or federation.experiment.name in self.allow_experiments
        rules = (
            (known, "this site takes part in the federations that it agreed to alone"),
            (
                federation.secure_aggregation.enabled or not self.secure_aggregation,
                "this site trains with secure aggregation alone",
            ),
            (federation.privacy.enabled or not self.privacy, "this site trains with differential privacy alone"),
            (
                min(sites, federation.min_sites) >= self.min_sites,
                f"this site trains with at least {self.min_sites} sites alone",
            ),
            (federation.local_epochs <= self.max_epochs, f"this site trains at most {self.max_epochs} epochs a round"),
            (allowed, "this site does not allow this experiment"),
        )
        return next((reason for met, reason in rules if not met), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One hospital.

    Attributes:
        name: letters, digits, ``_``, ``.`` and ``-``; for this site's own log and audit file.
        data: the folder that ``hemoscope prepare`` wrote.
        work: the folder for what stays here: the audit file, the log, batch norm under ``batch_norm = "local"``.
        patients: a text file with one patient id a line: the part of the data that is this site's; None takes all.
        threads: of PyTorch; None leaves the choice to it.
        policy: what the site refuses.
    """

    name: str
    data: Path
    work: Path
    patients: Path | None = None
    threads: int | None = None
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        """Reject a name that is no folder's, and threads below 1."""
        check_name("site: name", self.name)
        if self.threads is not None and self.threads < 1:
            msg = f"threads must be at least 1, got {self.threads}"
            raise ConfigError(msg)

    @property
    def audit_path(self) -> Path:
        """The file that records what left this site."""
        return self.work / "audit.jsonl"

    def cache(self) -> Cache:
        """The prepared data, of this site's patients alone.

        Raises:
            DataError: no prepared data, no readable list of patients, a patient that the data lack, or nobody left.
        """
        cache = open_cache(self.data)
        if self.patients is not None:
            own = _listed(self.patients)
            here = cache.manifest["patient_id"].astype(str)
            unknown = len(own - set(here))
            if unknown:
                msg = f"{self.patients.name}: the data lack {unknown} of its {len(own)} patients. List those prepared"
                raise DataError(msg)
            cache = replace(cache, manifest=cache.manifest[here.isin(own)].reset_index(drop=True))
        if not len(cache.manifest):
            msg = f"site {self.name} has no slices. Prepare its data, or list its patients"
            raise DataError(msg)
        return cache


def read_site(path: Path) -> Site:
    """Read a site file; its relative paths are relative to the file.

    Raises:
        ConfigError: not TOML, an unknown or missing key, or a value of the wrong type or range.
    """
    site = build_record(Site, read_tables(path, kind="site"), where=path.name)
    folder = path.parent.absolute()
    patients = None if site.patients is None else folder / site.patients
    return replace(site, data=folder / site.data, work=folder / site.work, patients=patients)


def _listed(path: Path) -> set[str]:
    try:
        patients = {line.strip() for line in path.read_text().splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        msg = f"{path.name}: not a readable list of patients ({reason}). Write one patient id a line"
        raise DataError(msg) from error
    if not patients:
        msg = f"{path.name} names nobody. Write one patient id a line"
        raise DataError(msg)
    return patients
