"""Fitting calibrations to logits, and scoring them only on groups they were not fitted on.

Three maps from a logit to a probability: Platt's (scale and bias), temperature (scale alone) and isotonic (a rising
step-free curve). All keep the order of scores. With a handful of positives Platt's is the one to use: it has two
numbers, smoothed targets and a weak pull of its scale toward 1.

Isotonic regression is scikit-learn's. The other two are written here, since scikit-learn gives other numbers.
LogisticRegression cannot pull the scale toward 1 nor keep it positive: without that, probabilities move by up to 0.004
for three positives of 100 (by 0.28 on hard labels), and scores that rank the wrong way are turned round. Its
temperature scaling is private, and without smoothed targets (up to 0.015 for 100 images).
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from hemoscope.errors import DataError, MissingExtraError
from hemoscope.evaluation.intervals import group_indices
from hemoscope.evaluation.metrics import Booleans, Floats, Integers, checked_pair
from hemoscope.inference.calibration import AnyCalibration, Calibration, IsotonicCalibration, sigmoid

# A scale never falls below this: scores that rank worse than chance are flattened, not turned round.
LOWEST_SCALE = 1e-3
HIGHEST_SCALE = 1e3
# Strength of the pull of the scale toward 1, as if so many images' curvature had been seen before.
SCALE_RIDGE = 0.05
DEFAULT_FOLDS = 5
# Probabilities of exactly 0 or 1 become logits of about 16: the resolution of the float32 they were written in.
PROBABILITY_MARGIN = 1e-7
_NEWTON_STEPS = 200


Fit = Callable[[Floats, Booleans], AnyCalibration]


def logit(probabilities: ArrayLike) -> Floats:
    """Probabilities of any shape back to logits, kept 1e-7 from 0 and 1."""
    inside = np.clip(np.asarray(probabilities, dtype=np.float64), PROBABILITY_MARGIN, 1.0 - PROBABILITY_MARGIN)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def fit_platt(logits: ArrayLike, labels: ArrayLike) -> Calibration:
    """Platt's calibration of one label: maximum likelihood of sigmoid(scale * logit + bias).

    Targets are smoothed as Platt did (1999, section 2.2), to (positives + 1) / (positives + 2) and
    1 / (negatives + 2), so that perfectly separated scores keep a finite scale; Newton's method with halved steps
    (Lin, Lin and Weng 2007). Where the best scale is not positive the scale is held at 0.001: the problem is convex,
    so the best allowed point lies on that edge.

    Args:
        logits: (images,) finite.
        labels: (images,) 0 or 1.

    Raises:
        DataError: one class only, or logits that are not finite.
    """
    values, truth = _two_classes(logits, labels)
    targets = smoothed_targets(truth)
    # Newton runs on centred, scaled logits; without that a narrow cloud far from zero is ill-conditioned.
    centre, spread = float(values.mean()), float(values.std()) or 1.0
    standard = (values - centre) / spread
    ridge, prior = SCALE_RIDGE / spread**2, spread
    scale, bias = _newton(standard, targets, free_scale=True, start=(prior, 0.0), ridge=ridge, prior=prior)
    if scale < LOWEST_SCALE * spread:
        edge = (LOWEST_SCALE * spread, 0.0)
        scale, bias = _newton(standard, targets, free_scale=False, start=edge, ridge=ridge, prior=prior)
    return Calibration(scale=scale / spread, bias=bias - scale / spread * centre)


def smoothed_targets(labels: Booleans) -> Floats:
    """Platt's targets in place of 1 and 0: what a uniform prior would expect of the next image of each class."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    return np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _newton(
    logits: Floats, targets: Floats, *, free_scale: bool, start: tuple[float, float], ridge: float, prior: float
) -> tuple[float, float]:
    """Minimise cross-entropy + ridge / 2 * (scale - prior)^2 over scale (where free) and bias."""
    design = np.stack([logits if free_scale else np.zeros_like(logits), np.ones_like(logits)], axis=1)
    fixed = 0.0 if free_scale else start[0] * logits
    penalty = np.diag([ridge if free_scale else 1.0, 0.0])
    target_point = np.array([prior if free_scale else start[0], 0.0])

    def objective(point: Floats) -> float:
        scores = design @ point + fixed
        pull = (point - target_point) @ penalty @ (point - target_point) / 2
        return float((np.logaddexp(0.0, scores) - targets * scores).sum() + pull)

    point = np.array(start)
    value = objective(point)
    for _ in range(_NEWTON_STEPS):
        chance = sigmoid(design @ point + fixed)
        gradient = design.T @ (chance - targets) + penalty @ (point - target_point)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + penalty + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < 1e-14 * max(1.0, abs(value)):
            break
        length = 1.0
        while length > 1e-10 and not objective(point - length * step) < value:
            length /= 2
        if length <= 1e-10:
            break
        point = point - length * step
        value = objective(point)
    return float(point[0]), float(point[1])


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> Calibration:
    """Temperature scaling (Guo et al. 2017): one positive scale, no bias; arguments as for :func:`fit_platt`."""
    values, truth = _two_classes(logits, labels)
    targets = smoothed_targets(truth)

    def loss(log_scale: float) -> float:
        scores = np.exp(log_scale) * values
        return float((np.logaddexp(0.0, scores) - targets * scores).mean())

    bounds = (float(np.log(LOWEST_SCALE)), float(np.log(HIGHEST_SCALE)))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return Calibration(scale=float(np.exp(found.x)), bias=0.0)


def fit_isotonic(logits: ArrayLike, labels: ArrayLike) -> IsotonicCalibration:
    """Isotonic regression (Zadrozny and Elkan 2002) on smoothed targets; arguments as for :func:`fit_platt`.

    Images of one logit count as one point. Between the levels found the curve is linear, outside it is level; the
    smoothed targets keep it away from 0 and 1, where one wrong image would cost an infinite loss.

    Raises:
        DataError: as for :func:`fit_platt`.
        MissingExtraError: scikit-learn is not installed.
    """
    values, truth = _two_classes(logits, labels)
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise MissingExtraError(package="scikit-learn", extra="study") from error
    curve = IsotonicRegression().fit(values, smoothed_targets(truth))
    return IsotonicCalibration(
        logits=tuple(curve.X_thresholds_.tolist()), probabilities=tuple(curve.y_thresholds_.tolist())
    )


FITS: dict[str, Fit] = {"platt": fit_platt, "isotonic": fit_isotonic, "temperature": fit_temperature}
DEFAULT_METHOD = "platt"


def fit_of(method: str) -> Fit:
    """The fit of this name. Raises DataError where there is none."""
    if method not in FITS:
        msg = f"unknown calibration method {method!r}; choose one of {', '.join(FITS)}"
        raise DataError(msg)
    return FITS[method]


def group_folds(labels: ArrayLike, groups: Integers, folds: int, *, seed: int) -> Integers:
    """The fold of each image, (images,): groups stay whole, groups with a positive are distributed evenly.

    Raises:
        DataError: fewer than two groups with a positive, fewer than two folds, or fewer groups than folds.
    """
    truth = np.asarray(labels, dtype=bool)
    n_groups = int(groups.max()) + 1
    positive = np.bincount(groups, weights=truth, minlength=n_groups) > 0
    if folds < 2:
        msg = f"cross-fitting needs at least 2 folds, got {folds}"
        raise DataError(msg)
    if positive.sum() < 2 or n_groups < folds:
        msg = (
            f"cross-fitting in {folds} folds needs as many groups and positives in two of them, "
            f"got {n_groups} groups, {int(positive.sum())} with a positive. Give more patients"
        )
        raise DataError(msg)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(n_groups)
    order = np.concatenate([shuffled[positive[shuffled]], shuffled[~positive[shuffled]]])
    fold = np.empty(n_groups, dtype=np.intp)
    fold[order] = np.arange(n_groups) % folds
    return fold[groups]


def cross_fitted(
    logits: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    folds: int = DEFAULT_FOLDS,
    seed: int = 0,
    *,
    fit: Fit = fit_platt,
) -> Floats:
    """Calibrated probabilities of one label, each from a fit that never saw that image's group; (images,).

    Args:
        logits: (images,) finite.
        labels: (images,) 0 or 1.
        groups: the patient of each image; None takes every image as its own group.
        folds: how many parts; each is calibrated by a fit on the others.
        seed: of the dealing of groups to folds.
        fit: one of the fits of this module.

    Raises:
        DataError: a part of the data holds one class only, or as for :func:`group_folds`.
    """
    values, truth = _two_classes(logits, labels)
    indices, _ = group_indices(groups, len(values))
    part = group_folds(truth, indices, folds, seed=seed)
    calibrated = np.empty(len(values))
    for fold in range(folds):
        held_out = part == fold
        calibrated[held_out] = fit(values[~held_out], truth[~held_out]).apply(values[held_out])
    return calibrated


def _two_classes(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Booleans]:
    values, truth = checked_pair(logits, labels)
    if truth.all() or not truth.any():
        msg = f"all {len(truth)} labels are {int(truth[0])}; a calibration needs both classes"
        raise DataError(msg)
    return values, truth
