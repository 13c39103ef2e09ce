"""One prepared dataset partitioned among several sites by patient, as hospitals differ: in size, or in what they see.

For simulations: the same cache, sites, seed and kind give the same sites, each patient stands at one site alone, and
nobody is left out. Every site gets enough to train and to be scored on: ``LEAST_PATIENTS``, one of them with a
hemorrhage and one without.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, DataError
from hemoscope.labels import LABELS, SUBTYPES

By = Literal["patient", "by-type", "dirichlet"]
LEAST_PATIENTS = 5

_ANY_ALONE, _NORMAL = len(SUBTYPES), len(SUBTYPES) + 1  # groups after those of the types


@dataclass(frozen=True, slots=True)
class _Population:
    """The patients that are assigned to sites, in a random order.

    ``groups`` holds for each patient its rarest type, or that it has a hemorrhage of no named type, or none.
    """

    patients: tuple[str, ...]
    groups: tuple[int, ...]
    shares: NDArray[np.float64]
    alpha: float
    generator: np.random.Generator

    def members(self, group: int) -> list[int]:
        return [place for place, found in enumerate(self.groups) if found == group]

    @property
    def sites(self) -> int:
        return len(self.shares)


def partition(
    cache: Cache,
    *,
    sites: int,
    by: By,
    seed: int = 257,
    uneven: Sequence[float] | None = None,
    alpha: float = 0.5,
    least: int = LEAST_PATIENTS,
) -> tuple[tuple[str, ...], ...]:
    """Patients of each site, sorted.

    Args:
        cache: the prepared dataset.
        sites: how many.
        by: ``patient`` assigns at random in uneven shares; ``by-type`` makes each site rich in other types (a patient
            with a hemorrhage goes where its rarest type is at home, those without are assigned in uneven shares);
            ``dirichlet`` draws for each type how it is shared (Hsu et al. 2019).
        seed: of everything random.
        uneven: share of each site, in any unit, for ``patient`` and ``by-type``; None lets shares fall in equal steps,
            such as 0.4, 0.3, 0.2, 0.1.
        alpha: of ``dirichlet``: the smaller, the more the sites differ.
        least: patients that every site gets.

    Raises:
        ConfigError: a setting is out of range.
        DataError: too few patients, or too few with or without a hemorrhage, for so many sites.
    """
    if by not in get_args(By):
        msg = f"a partition must be one of {', '.join(get_args(By))}, got {by}"
        raise ConfigError(msg)
    if sites < 2 or least < 1 or not 0 < alpha < np.inf:
        found = f"{sites} sites, alpha {alpha} and {least} patients"
        msg = f"a partition needs at least 2 sites, alpha above 0 and at least 1 patient a site, got {found}"
        raise ConfigError(msg)
    shares = _shares(sites, uneven)
    generator = np.random.default_rng(seed)
    patients, groups = _grouped(cache)
    _check_enough(groups, sites=sites, least=least)
    order = generator.permutation(len(patients)).tolist()
    population = _Population(
        tuple(patients[i] for i in order), tuple(groups[i] for i in order), shares, alpha, generator
    )
    assigned = _evened(_METHODS[by](population), population.groups, least=least)
    return tuple(tuple(sorted(population.patients[place] for place in site)) for site in assigned)


def _by_patient(population: _Population) -> list[list[int]]:
    return _cut(list(range(len(population.patients))), population.shares)


def _by_type(population: _Population) -> list[list[int]]:
    """Each type has a home, or several where there are more sites than types; the rest follows the shares."""
    assigned = _cut(population.members(_NORMAL), population.shares)
    members = {group: found for group in range(_NORMAL) if (found := population.members(group))}
    largest = sorted(members, key=lambda group: -len(members[group]))
    homes: dict[int, list[int]] = {group: [] for group in members}
    load = [0] * population.sites
    for group in largest:
        home = min(range(population.sites), key=lambda site: load[site])
        homes[group].append(home)
        load[home] += len(members[group])
    for site in (site for site in range(population.sites) if not load[site]):
        homes[max(largest, key=lambda group: len(members[group]) / len(homes[group]))].append(site)
    for group, places in members.items():
        for turn, place in enumerate(places):
            assigned[homes[group][turn % len(homes[group])]].append(place)
    return assigned


def _by_dirichlet(population: _Population) -> list[list[int]]:
    assigned: list[list[int]] = [[] for _ in range(population.sites)]
    for group in range(_NORMAL + 1):
        shares = population.generator.dirichlet(
            np.full(population.sites, population.alpha)
        )  # drawn for empty groups too: seeds agree
        for site, more in zip(assigned, _cut(population.members(group), shares), strict=True):
            site.extend(more)
    return assigned


_METHODS: dict[By, Callable[[_Population], list[list[int]]]] = {
    "patient": _by_patient,
    "by-type": _by_type,
    "dirichlet": _by_dirichlet,
}


def _shares(sites: int, uneven: Sequence[float] | None) -> NDArray[np.float64]:
    values = np.array(range(sites, 0, -1) if uneven is None else uneven, dtype=np.float64)
    if len(values) != sites or not (np.isfinite(values).all() and (values > 0).all()):
        msg = f"uneven needs one share above 0 for each of the {sites} sites, got {list(uneven or ())}"
        raise ConfigError(msg)
    return values / values.sum()


def _grouped(cache: Cache) -> tuple[list[str], list[int]]:
    """Patients in the order of their ids, and the group of each; an unknown label is no hemorrhage."""
    table = cache.manifest
    shown = (table[[label.value for label in LABELS]] == 1).fillna(value=False).astype(bool)
    flags = shown.groupby(table["patient_id"].astype(str)).any().sort_index()
    positive = flags.to_numpy()
    rarest_first = np.argsort(positive[:, 1:].sum(axis=0), kind="stable").tolist()
    groups = []
    for row in positive:
        types = [group for group in rarest_first if row[group + 1]]
        groups.append(types[0] if types else _ANY_ALONE if row[0] else _NORMAL)
    return [str(patient) for patient in flags.index], groups


def _check_enough(groups: Sequence[int], *, sites: int, least: int) -> None:
    normal = sum(group == _NORMAL for group in groups)
    bleeding = len(groups) - normal
    if len(groups) < sites * least or min(normal, bleeding) < sites:
        msg = (
            f"{len(groups)} patients, {bleeding} with a hemorrhage and {normal} without, cannot make {sites} sites of "
            f"at least {least}, one with and one without at each. Use fewer sites or more data"
        )
        raise DataError(msg)


def _cut(places: list[int], shares: NDArray[np.float64]) -> list[list[int]]:
    """Cut a list in shares; the slices differ from them by less than one."""
    ends = np.rint(np.cumsum(shares) * len(places)).astype(int).tolist()
    ends[-1] = len(places)
    return [places[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _evened(assigned: list[list[int]], groups: Sequence[int], *, least: int) -> list[list[int]]:
    """Move as few patients as it takes until every site has one with, one without, and enough altogether."""

    def of_kind(site: list[int], normal: bool) -> list[int]:
        return [place for place in site if (groups[place] == _NORMAL) is normal]

    def move(donor: list[int], poor: list[int], normal: bool) -> None:
        place = of_kind(donor, normal)[-1]
        donor.remove(place)
        poor.append(place)

    for normal in (False, True):
        for poor in (site for site in assigned if not of_kind(site, normal)):
            move(max(assigned, key=lambda site: len(of_kind(site, normal))), poor, normal)
    while len(poor := min(assigned, key=len)) < least:
        donor = max(assigned, key=len)
        normals = len(of_kind(donor, normal=True))
        move(donor, poor, normal=2 * normals > len(donor))
    return assigned
