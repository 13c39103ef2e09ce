"""A federation in words: what will happen, what leaves a site, what is refused. For people, before anybody trains."""

from importlib.util import find_spec

from hemoscope.evaluation.flow import counted
from hemoscope.federated.settings.federation import Federation

Rows = list[tuple[str, str]]

_BATCH_NORM = {
    "shared": "weights averaged as all others, statistics averaged beside the strategy",
    "local": "stays at its site, weights and statistics (FedBN)",
    "fixed": "weights averaged as all others, statistics as they began",
}
_WEIGHTS = {
    "slices": "its number of slices",
    "positives": "its number of positive slices",
    "uniform": "1, as all sites",
}


def summarise(federation: Federation, *, sites: int) -> list[tuple[str, Rows]]:
    """Tables of (subject, sentence) under their titles, for a federation of so many sites."""
    return [
        ("What happens", _happens(federation, sites)),
        ("What leaves a site", _leaves(federation)),
        ("What is refused", _refused(federation)),
    ]


def epsilon_after(federation: Federation, *, rounds: int, sites: int) -> float | None:
    """Epsilon that so many rounds spend on a site, or None where dp-accounting is not installed."""
    if find_spec("flwr") is None or find_spec("dp_accounting") is None:
        return None
    from hemoscope.federated.server.privacy import epsilon_of

    privacy = federation.privacy
    return float(epsilon_of(privacy.noise_multiplier, rounds, privacy.delta, sites))


def _happens(federation: Federation, sites: int) -> Rows:
    experiment = federation.experiment
    network, size = experiment.network.backbone, experiment.preprocessing.size
    asked = "all sites" if federation.fraction == 1 else f"{federation.fraction:.0%} of the sites"
    void = "without every site" if federation.privacy.enabled else f"below {federation.min_sites} replies"
    retried = f"void {void} and then tried again up to {counted(federation.retries, 'times')}"
    return [
        ("experiment", f"{experiment.name}: {network} at {size} pixels, split by {experiment.run.split}"),
        ("training", _training(federation)),
        ("a round", f"asks {asked}, goes on after {federation.round_timeout:g} s; {retried}"),
        ("strategy", _strategy(federation)),
        ("a site counts", _WEIGHTS[federation.weighting]),
        ("batch norm", _BATCH_NORM[federation.batch_norm]),
        ("secure aggregation", _secure(federation)),
        ("privacy", _privacy(federation, sites)),
        ("evaluation", _evaluation(federation.histograms.every)),
    ]


def _training(federation: Federation) -> str:
    rounds, epochs = counted(federation.rounds, "rounds"), counted(federation.local_epochs, "epochs")
    return f"{rounds} x {epochs}: {counted(federation.epochs, 'epochs')}"


def _evaluation(every: int) -> str:
    if not every:
        return "after the last round"
    return "after every round" if every == 1 else f"every {every} rounds, and after the last"


def _strategy(federation: Federation) -> str:
    chosen = federation.strategy
    details = {
        "fedprox": f", mu {chosen.proximal:g}",
        "fedadam": f", server learning rate {chosen.server_learning_rate:g}",
        "trimmed-mean": f", {chosen.trim:.0%} of the sites left out at each end",
    }
    return chosen.name + details.get(chosen.name, "")


def _secure(federation: Federation) -> str:
    chosen = federation.secure_aggregation
    if not chosen.enabled:
        return "off: the server sees each site's update"
    return f"SecAgg+, {chosen.shares} shares, {chosen.threshold} bring a key back"


def _privacy(federation: Federation, sites: int) -> str:
    chosen = federation.privacy
    if not chosen.enabled:
        return "off: no noise"
    spent = epsilon_after(federation, rounds=federation.rounds, sites=sites)
    said = "not computed here (it needs Flower: make setup-federated)" if spent is None else f"{spent:.3g}"
    noise = f"noise {chosen.noise_multiplier:g} x {chosen.clipping_norm:g} on the sum, for a whole site of {sites}"
    end = "" if chosen.max_epsilon is None else f"; ends before epsilon {chosen.max_epsilon:g}"
    return f"{noise}; epsilon {said} at delta {chosen.delta:g} after {counted(federation.rounds, 'rounds')}{end}"


def _leaves(federation: Federation) -> Rows:
    masked, norm = federation.secure_aggregation.enabled, federation.clipping_norm
    clip = f", shortened to norm {norm:g}" if norm is not None else ""
    update = (
        f"their change{clip}, masked" if masked else f"their values, their change{clip}" if clip else "their values"
    )
    trained = "all trained weights" + (" but batch norm's" if federation.batch_norm == "local" else "")
    also = ", masked with them" if masked else ""
    rows = [f"{trained}: {update}", f"what it counts by, {_WEIGHTS[federation.weighting]}{also}"]
    if federation.batch_norm == "shared":
        rows.append(f"means and variances of batch norm{also}")
    if not federation.privacy.enabled:  # it would leave without noise
        rows.append("its mean loss")
    cell = federation.histograms.least_cell
    return [
        *(("each round", row) for row in rows),
        ("evaluation", f"counts of scores in fixed cells, no cell below {cell} of a class"),
        ("never", "images, labels, scores of single slices or patients, identifiers, paths"),
    ]


def _refused(federation: Federation) -> Rows:
    limits = federation.limits
    bounds = f"a weight above {limits.max_weight:,}"
    if federation.clipping_norm is None:
        bounds = f"a norm above {limits.max_norm:g}, {bounds}"
    rows = [("an update with", f"missing or other names, another shape, a value that is not finite, {bounds}")]
    if federation.secure_aggregation.enabled:
        rows = [("an update with", "nothing: single updates are hidden, so each site shortens its own")]
    least = "a site missing" if federation.privacy.enabled else f"fewer than {federation.min_sites} updates left"
    return [*rows, ("a round with", least)]
