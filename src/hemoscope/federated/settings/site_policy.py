"""What a site checks before it does what a server asks: its policy, and the numbers of secure aggregation.

A refusal is one sentence made of the policy alone. It is the only text of an error that ever leaves a site.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.errors import FederationError
from hemoscope.federated.settings.names import SAFE_NAME
from hemoscope.federated.settings.site import Policy, Site

if TYPE_CHECKING:
    from hemoscope.federated.settings.federation import (
        Federation,  # brings torch along; three of four messages do not need it
    )

# How updates are counted in whole numbers before they are masked: values in 2**30 steps (Flower rounds into 32 bits
# with a sign), masks and sums modulo 2**40. So 1,024 sites fit, and a site takes no other numbers: fewer steps or a
# smaller modulus would let values shine through the masks.
STEPS, MODULUS = 1 << 30, 1 << 40


class PolicyRefusalError(FederationError):
    """A site takes no part; the message is made of its policy alone and may leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureSetup:
    """What a server proposes for one round of secure aggregation.

    Attributes:
        sites: that take part.
        shares: that each site's keys are split into.
        threshold: of shares that bring a key back.
        steps: that the range of a value is divided into.
        modulus: of masks and sums.
    """

    sites: int
    shares: int
    threshold: int
    steps: int
    modulus: int


def check_request(policy: Policy, federation: "Federation", *, sites: int) -> None:
    """Refuse what the policy does not allow, for training and for evaluation alike. Raises PolicyRefusalError."""
    if reason := policy.refusal(federation, sites=sites):
        raise PolicyRefusalError(_sentence(reason))


def check_masked(federation: "Federation", *, masked: bool) -> None:
    """Refuse an update in the clear where the federation's settings, which the policy passed, promise masks.

    Raises:
        PolicyRefusalError: the message and the settings in it disagree.
    """
    if federation.secure_aggregation.enabled != masked:
        asked = "with" if masked else "without"
        raise PolicyRefusalError(_sentence(f"the federation's settings forbid a round {asked} secure aggregation"))


def check_setup(policy: Policy, setup: SecureSetup) -> None:
    """Refuse numbers of secure aggregation that hide too little. Raises PolicyRefusalError."""
    if setup.sites < max(policy.min_sites, setup.shares):
        least = max(policy.min_sites, setup.shares)
        raise PolicyRefusalError(_sentence(f"this site adds its update to those of at least {least} sites alone"))
    if setup.shares < 3 or setup.threshold < 2 or not setup.shares < 2 * setup.threshold < 2 * setup.shares:
        raise PolicyRefusalError(_sentence("this site needs a threshold above half the shares, and below all"))
    if (setup.steps, setup.modulus) != (STEPS, MODULUS):
        raise PolicyRefusalError(_sentence("this site masks with its own version's modulus alone"))


def check_unmask(own: int, active: Collection[int], dead: Collection[int], *, threshold: int) -> None:
    """Refuse to give shares that would take both masks off one site's update.

    A site's own mask is taken off where its update came, its masks with others where it did not: never both.

    Args:
        own: node id of this site.
        active: sites whose updates came.
        dead: sites whose updates did not.
        threshold: of the setup. A site knows its neighbours alone, not how many sites are in the sum beside them.

    Raises:
        PolicyRefusalError: a site is named twice, this site is not among the active, or the active are too few.
    """
    named = [*active, *dead]
    if len(set(named)) != len(named) or own not in active or len(active) < threshold:
        raise PolicyRefusalError(_sentence("this site does not help to unmask a single update"))


def cell_size(policy: Policy, federation: "Federation") -> int:
    """Fewest slices or patients in a cell of a histogram: the coarser of what is asked and what the site allows."""
    return max(policy.least_cell, federation.histograms.least_cell)


def part_folder(site: Site, federation: "Federation", part: str) -> Path:
    """Where a part's work stays at this site, the same for every round and every resume of the server.

    Raises:
        FederationError: the part's name is no folder's.
    """
    if not SAFE_NAME.fullmatch(part):
        msg = f"the part has an unsafe name of {len(part)} characters. Parts are named like fold-0, final or split"
        raise FederationError(msg)
    return site.work / federation.name / part


def _sentence(reason: str) -> str:
    return f"{reason[0].upper()}{reason[1:]}."
