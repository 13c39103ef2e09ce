"""Central differential privacy, by Flower's mechanism and Flower's accountant; the protected unit is a whole site.

Each site shortens its update to the clipping norm C; the server, who is trusted, shortens it again where a site did
not, takes the plain mean of all n sites and adds normal noise of standard deviation z C / n to every trained value
(McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018).

What epsilon means here. Two federations are neighbours when one site's update is there in the one and nothing (zero) in
the other, with the same public n. So the mean moves by at most C / n. Flower calls this add-or-remove-one, its one
relation without amplification by sampling. Against a site whose data is *replaced* the mean moves by 2 C / n: that
epsilon is ``epsilon_of`` at half the noise multiplier. A round counts when its mean was released; void rounds show
nothing. Epsilon covers the weights alone: not the losses and histograms that sites send, nor what the server sees.

How good the noise is. Flower draws it from NumPy's global Mersenne Twister in floating point. That generator is not
made for cryptography: who knows enough of its numbers can compute the rest, and floating-point normal noise has gaps
that show the value beneath (Mironov, "On significance of the least significant bits", CCS 2012). So epsilon holds
for noise as the theory has it, not against an attacker of the generator. What must not happen is that the seed is
known, as after the seeding of a training run in the same process: so the generator is seeded from the operating
system's entropy before every release.
"""

import math
from typing import Any

import numpy as np
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg
from flwr.supercore.differential_privacy import add_gaussian_noise_inplace, compute_stdv
from flwr.supercore.privacy_accounting import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    SamplingMethod,
)
from flwr.supercore.privacy_accounting import PrivacyConfig as AccountingConfig
from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.weights import Arrays
from hemoscope.federated.settings.federation import Federation

__all__ = [
    "BudgetSpentError",
    "PrivacyBudgetExhausted",
    "aggregate_private",
    "budget_spent",
    "check_budget",
    "epsilon_of",
    "noisy",
    "open_accountant",
    "seed_noise",
    "spent_epsilon",
]


class BudgetSpentError(FederationError):
    """The next round would exceed ``privacy.max_epsilon``; the weights of the last round are the result."""


def open_accountant(federation: Federation, *, sites: int, state: dict[str, Any] | None) -> RdpAccountant:
    """Flower's accountant, new or as a round left it.

    Args:
        federation: its delta and highest epsilon.
        sites: n, all of whom take part in every round.
        state: what the accountant's ``state_dict`` gave; None before the first round.

    Raises:
        FederationError: the state is of other settings, or damaged.
    """
    accountant = RdpAccountant(_accounting(federation.privacy.delta, sites, federation.privacy.max_epsilon))
    if state is None:
        return accountant
    try:
        accountant.load_state_dict(state)
    except (ValueError, AttributeError) as error:
        remedy = "Go on with the same delta, max_epsilon and number of sites, or begin a new run"
        msg = f"the privacy that was spent so far cannot be carried on ({error}). {remedy}"
        raise FederationError(msg) from error
    return accountant


def epsilon_of(noise_multiplier: float, rounds: int, delta: float, sites: int) -> float:
    """Epsilon after so many rounds in which all sites took part; infinite without noise.

    It does not depend on ``sites``, for nobody is left out by chance: fewer sites only make the same noise on their sum
    weigh more in their mean.
    """
    if noise_multiplier == 0:
        return math.inf if rounds else 0.0
    accountant = RdpAccountant(_accounting(delta, sites, None))
    if rounds:
        accountant.compose(_event(noise_multiplier, sites), rounds)
    return spent_epsilon(accountant)


def spent_epsilon(accountant: RdpAccountant) -> float:
    """Epsilon of all releases so far, at the accountant's delta."""
    return float(accountant.get_privacy_spent().epsilon)


def noisy(
    strategy: FedAvg, federation: Federation, accountant: RdpAccountant, *, sites: int
) -> DifferentialPrivacyClientSideFixedClipping:
    """A strategy of Flower's with noise on what it makes, counted by the accountant. It takes all sites or none."""
    return DifferentialPrivacyClientSideFixedClipping(
        strategy, federation.privacy.noise_multiplier, _norm(federation), sites, accountant=accountant
    )


def check_budget(federation: Federation, accountant: RdpAccountant, *, sites: int) -> None:
    """Refuse a round before anybody trains for it. Raises BudgetSpentError; see there."""
    event = _event(federation.privacy.noise_multiplier, sites)
    if accountant.config.max_epsilon is not None and accountant.would_exceed(event):
        raise budget_spent(federation, accountant)


def budget_spent(federation: Federation, accountant: RdpAccountant) -> BudgetSpentError:
    """The error that ends a run at its privacy budget."""
    done, epsilon = accountant.num_releases, spent_epsilon(accountant)
    return BudgetSpentError(
        f"the privacy budget is spent: {done} rounds are done, epsilon is {epsilon:.3g} at delta "
        f"{federation.privacy.delta:g}, and one more would exceed max_epsilon = {federation.privacy.max_epsilon:g}. "
        f"The weights of round {done} are kept. Raise privacy.noise_multiplier for more rounds"
    )


def aggregate_private(mean: Arrays, federation: Federation, accountant: RdpAccountant, *, sites: int) -> Arrays:
    """Noise on a mean that was made elsewhere (by secure aggregation), and its count.

    Args:
        mean: of the updates of all sites, each shortened to the clipping norm at its site, all of weight 1: the server
            cannot see whether a site did.
        federation: the noise and the norm.
        accountant: counts this release.
        sites: how many updates are in the mean.

    Returns:
        The mean with noise, float32.

    Raises:
        FederationError: it is not the mean of all sites.
        BudgetSpentError: the release would exceed the highest epsilon; nothing is counted.
    """
    if sites != accountant.config.population_size:
        msg = f"the mean is of {sites} sites, not of all {accountant.config.population_size}. Repeat the round"
        raise FederationError(msg)
    check_budget(federation, accountant, sites=sites)
    private = {name: np.array(value, dtype=np.float32) for name, value in mean.items()}
    seed_noise()
    add_gaussian_noise_inplace(
        list(private.values()), compute_stdv(federation.privacy.noise_multiplier, _norm(federation), sites)
    )
    accountant.compose(_event(federation.privacy.noise_multiplier, sites))
    return private


def seed_noise() -> None:
    """Seed the generator of Flower's noise from the operating system's entropy; see the module."""
    np.random.seed()  # noqa: NPY002  (Flower draws from it)


def _accounting(delta: float, sites: int, max_epsilon: float | None) -> AccountingConfig:
    return AccountingConfig(
        target_delta=delta,
        population_size=sites,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.NO_AMPLIFICATION,
        max_epsilon=max_epsilon,
    )


def _event(noise_multiplier: float, sites: int) -> GaussianPrivacyEvent:
    return GaussianPrivacyEvent(noise_multiplier=noise_multiplier, sample_size=sites, population_size=sites)


def _norm(federation: Federation) -> float:
    norm = federation.clipping_norm
    assert norm is not None, "called without privacy"
    return norm
