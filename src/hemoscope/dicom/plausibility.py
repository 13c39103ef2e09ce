"""Checks that a volume can be a head in Hounsfield units: air near -1000, soft tissue at 0 to 80, bone and a skull.

Wrong values (an offset of 1024, a wrong sign, a display window, noise) are refused; blank images, and right values of
something that does not look like a head (an abdomen, a phantom cylinder), carry a note. A few slices may lie above the
skull or be cropped to the head, so they are only refused for values that no slice of a head has.
``experiments/plausibility.py`` measures both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.contrast_pixels import BRIGHT, sinus_hounsfield
from hemoscope.dicom.metal import BODY, SIDE, slices_with_metal
from hemoscope.dicom.quality import is_sharp_kernel
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.skull import SKULL, between
from hemoscope.dicom.slices import QualityNote, SliceHeader
from hemoscope.dicom.texture import is_noise, is_text
from hemoscope.volume import AxisChange, HounsfieldVolume

__all__ = ["check_plausible", "implausible_values", "slices_with_metal", "unlike_a_head", "wrong_slices"]

# What is looked at: this many slices, with ``SIDE`` pixels a side.
_SLICES = 24
# A stack that covers this length, or has as many slices without positions, must show soft tissue and the skull.
_WHOLE_MM, _WHOLE_SLICES = 80.0, 15

_AIR = (-1150, -850)
_NO_AIR = 0.01  # edges between air and tissue also have such values
_SOFT = (0, 80)
_PEAK = (5, 60)  # of good series it lies at 23 to 50
_BONE = 300
_NOTHING = -500
_BLANK_RANGE = 20
_DENSEST, _LOWEST = 2500, -3100
_BELOW_NOISE = -1500  # of air in the sinuses, whatever the kernel


@dataclass(frozen=True)
class _Sample:
    """Parts of a volume, (z, y, x).

    Attributes:
        fine: rows of a few slices, every pixel.
        thin: every n-th pixel of every n-th slice.
        mean: the mean of four pixels in the place of each of ``thin``, to see tissue through noise.
        whole: whether the stack covers most of a head.
        pixel_mm: distance between rows and columns of ``thin`` and ``mean``, or None.
        aspect: height of a pixel over its width; 1 if unknown.
        exchanged: whether rows run from front to back.
    """

    fine: NDArray[np.int16]
    thin: NDArray[np.int16]
    mean: NDArray[np.float32]
    whole: bool
    pixel_mm: tuple[float, float] | None
    aspect: float
    exchanged: bool

    def share(self, low: float, high: float) -> float:
        """Share of pixels from ``low`` to ``high`` HU."""
        return float(np.mean((self.thin >= low) & (self.thin <= high)))

    @cached_property
    def is_blank(self) -> bool:
        # np.ptp of int16 overflows.
        return int(self.thin.max()) - int(self.thin.min()) < _BLANK_RANGE

    @cached_property
    def air(self) -> float:
        return self.share(*_AIR)

    @cached_property
    def bone(self) -> float:
        return self.share(_BONE, np.inf)

    @cached_property
    def low(self) -> float:
        """Share below the noise of air, without the most frequent such value: padding is constant."""
        values = self.thin[self.thin < _AIR[0]]
        if not values.size:
            return 0.0
        return (values.size - int(np.unique(values, return_counts=True)[1].max())) / self.thin.size

    @cached_property
    def peak(self) -> float | None:
        """The most frequent HU between -20 and 120, smoothed over 9 HU; None if nearly nothing is there."""
        soft = self.mean[(self.mean > -20) & (self.mean < 120)]
        if soft.size < 0.002 * self.mean.size:
            return None
        counts = np.bincount((soft + 20).astype(np.intp), minlength=140).astype(np.float64)
        # One value that stands out is what de-identification or skull-stripping wrote, not tissue.
        beside = (np.roll(counts, 2) + np.roll(counts, 3) + np.roll(counts, -2) + np.roll(counts, -3)) / 4
        counts = np.where(counts > 5 * beside + 1, beside, counts)
        return float(np.convolve(counts, np.ones(9), "same").argmax() - 20) if counts.any() else None


def check_plausible(volume: HounsfieldVolume, headers: Sequence[SliceHeader]) -> tuple[QualityNote, ...]:
    """Return notes on a series that does not look like a head, and refuse values that are no Hounsfield units of one.

    Args:
        volume: the series.
        headers: of its slices, at least one.

    Raises:
        DicomReadError: ``implausible_hounsfield``.
    """
    sample = _sampled(volume)
    declared = all(header.rescale_type in (None, "HU", "HU_MOD") for header in headers)
    if (wrong := _implausible(sample, declared=declared)) is not None:
        raise refusal(f"series {headers[0].series_instance_uid}", "implausible_hounsfield", wrong)
    suspects = _suspects(volume)
    if (some := _wrong_slice(volume, suspects)) is not None:
        raise refusal(f"series {headers[0].series_instance_uid}", "implausible_hounsfield", some)
    notes = []
    if (unlike := _unlike_a_head(sample)) is not None:
        notes.append(QualityNote(code="unlike_head", message=unlike))
    elif blank := sum(int(np.ptp(volume.hounsfield[index].astype(np.int32))) < _BLANK_RANGE for index in suspects):
        notes.append(QualityNote(code="unlike_head", message=f"{blank} of {len(volume)} slices are blank"))
    if metal := slices_with_metal(volume):
        message = f"metal in {metal} of {len(volume)} slices: its streaks can hide blood or look like it"
        notes.append(QualityNote(code="metal", message=message))
    if sample.whole and all(header.contrast_agent is None for header in headers):
        notes += _contrast_notes(volume, headers)
    return tuple(notes)


def wrong_slices(volume: HounsfieldVolume) -> dict[int, str]:
    """Return the slices, by index, whose values taken alone are no Hounsfield units of a head, and why."""
    alone = {
        index: _implausible(_sampled(_alone(volume.hounsfield[index])), declared=True) for index in _suspects(volume)
    }
    return {index: wrong for index, wrong in alone.items() if wrong is not None}


def _contrast_notes(volume: HounsfieldVolume, headers: Sequence[SliceHeader]) -> list[QualityNote]:
    # The noise of a sharp kernel is bright too, and so is the front of the skull.
    if volume.orientation is None or any(
        is_sharp_kernel(header.convolution_kernel, header.series_description) for header in headers
    ):
        return []
    sinus = sinus_hounsfield(volume)
    if sinus is None or sinus < BRIGHT:
        return []
    message = f"the superior sagittal sinus has {sinus:.0f} HU: contrast agent may have been given"
    return [QualityNote(code="contrast_suspected", message=message)]


def implausible_values(volume: HounsfieldVolume, *, declared: bool = True) -> str | None:
    """Return why the values cannot be Hounsfield units of a head, or None.

    Args:
        volume: one or more slices.
        declared: whether the file declares its units as HU; if it declares others, air must be there.
    """
    return _implausible(_sampled(volume), declared=declared)


def unlike_a_head(volume: HounsfieldVolume) -> str | None:
    """Return why images are blank, or why a stack that covers most of a head does not look like one, or None."""
    return _unlike_a_head(_sampled(volume))


def _implausible(sample: _Sample, *, declared: bool) -> str | None:
    if sample.is_blank:
        return None
    if (first := _shifted(sample) or _out_of_range(sample)) is not None:
        return first
    if _is_shifted_down(sample):
        return _SHIFTED_DOWN
    if sample.bone > 0.4:
        return f"{sample.bone:.0%} of the pixels are above 300 HU, more than bone: the offset, sign or scale is wrong"
    if sample.air < _NO_AIR:
        return _without_air(sample, declared=declared)
    return _wrapped_bone(sample) or (_without_soft_tissue(sample) if sample.whole else None)


def _out_of_range(sample: _Sample) -> str | None:
    """Values that no scanner makes, of whatever object."""
    if sample.share(_DENSEST, np.inf) > 0.03 or sample.share(-np.inf, _LOWEST) - _constant(sample, _LOWEST) > 0.03:
        low, high = np.percentile(sample.thin, [1, 99])
        return f"values reach from {low:.0f} to {high:.0f}: signed values read as unsigned, or swapped bytes"
    if is_text(sample.fine):
        return "thin lines on a constant background: a page of text, or a drawing"
    if is_noise(sample.fine):
        return "neighboring pixels are unrelated: the images are noise, or damaged"
    return None


def _alone(one: NDArray[np.int16]) -> HounsfieldVolume:
    return HounsfieldVolume(hounsfield=one[None], spacing_mm=(None, None, None), positions_mm=(None,), orientation=None)


_SHIFTED_DOWN = "air is near -2000 and soft tissue near -1000: an offset of about -1024 HU"


def _shifted(sample: _Sample) -> str | None:
    """Whether there is no air, but the rest of a head 1000 or 2000 HU higher."""
    if sample.air >= _NO_AIR:
        return None
    for offset, stated in ((2036, "+2000 to +2048"), (1012, "+1000 to +1024")):
        tissue = sample.share(offset - 20, offset + 100)
        if tissue > 0.03 and tissue > 2 * sample.share(offset + 130, offset + 250):
            return f"no air near -1000, but soft tissue near {offset + 35}: an offset of {stated} HU"
    return None


def _suspects(volume: HounsfieldVolume) -> list[int]:
    """Return the slices without air, or with much that is below air: these are looked at one by one."""
    step = max(1, -(-max(volume.hounsfield.shape[1:]) // SIDE))
    thin = np.ascontiguousarray(volume.hounsfield[:, ::step, ::step])
    # Counting is much faster than the mean of booleans.
    up_to_air, below = (np.count_nonzero(values, axis=(1, 2)) for values in (thin <= _AIR[1], thin < _AIR[0]))
    least, most = _NO_AIR * thin[0].size, 0.1 * thin[0].size
    return np.flatnonzero((up_to_air - below < least) | (below > most)).tolist()


def _wrong_slice(volume: HounsfieldVolume, suspects: Sequence[int]) -> str | None:
    """Return what is wrong with the first slice whose values are no HU although those of the series are."""
    for index in suspects[:: max(1, -(-len(suspects) // _SLICES))]:
        wrong = _implausible(_sampled(_alone(volume.hounsfield[index])), declared=True)
        if wrong is not None:
            return f"slice {index + 1} of {len(volume)}: {wrong}"
    return None


def _is_shifted_down(sample: _Sample) -> bool:
    """Whether soft tissue is missing, and what looks like air has a skull around it or the noise of air below it."""
    if sample.share(*_SOFT) > 0.03 or sample.share(-np.inf, _AIR[0]) < 0.1:
        return False
    return sample.low > max(0.05, sample.air) or max(_surrounded(one + 1024) for one in sample.mean) > 0.2


def _wrapped_bone(sample: _Sample) -> str | None:
    below = sample.thin < _BELOW_NOISE
    if not below.any() or float((below & between(sample.thin > BODY)).mean()) <= 0.001:
        return None
    return "values below air inside the body: unsigned values of dense bone read as signed"


def _without_air(sample: _Sample, *, declared: bool) -> str | None:
    """Without air, a volume may be cropped to the head or skull-stripped; then its soft tissue is right."""
    if (picture := _picture(sample)) is not None:
        return picture
    above, below = sample.share(_AIR[1], -150), sample.share(-np.inf, _AIR[0])
    # Only what is skull-stripped has padding, but neither air nor bone.
    if above > 0.2 or sample.low > 0.05 or (below > 0.2 and sample.bone > 0.02):
        return f"no air near -1000, but much {'above' if above > below else 'below'}: the scale is wrong"
    if sample.peak is None or not _PEAK[0] <= sample.peak <= _PEAK[1]:
        return "neither air near -1000 nor soft tissue between 0 and 80 HU"
    if not declared:
        return "the file declares other units than HU (0028,1054), and there is no air near -1000"
    return None


def _picture(sample: _Sample) -> str | None:
    """Whether the values are gray levels of a display window rather than HU."""
    highest = int(sample.thin.max())
    if highest < _DENSEST and float(np.mean(sample.thin == highest)) > 0.01:
        return f"no air near -1000, and values end abruptly at {highest}: a picture of a display window"
    if sample.thin.min() == 0 and 200 <= highest <= 255:
        return f"values from 0 to {highest}: an 8-bit picture"
    return None


def _without_soft_tissue(sample: _Sample) -> str | None:
    soft, above = (float(np.mean((sample.mean > low) & (sample.mean < low + 80))) for low in (0, 110))
    body = float(np.mean(sample.mean > BODY))
    if body < 0.005 or soft < 0.05 * body or soft < 1.5 * above or sample.peak is None:
        return "air near -1000, but no soft tissue between 0 and 80 HU: the offset or the scale is wrong"
    if not _PEAK[0] <= sample.peak <= _PEAK[1]:
        return f"soft tissue has {sample.peak:.0f} HU, where a brain has about 35: the offset or the scale is wrong"
    return None


def _unlike_a_head(sample: _Sample) -> str | None:
    if sample.is_blank:
        return f"the images are blank: all values lie between {sample.thin.min()} and {sample.thin.max()}"
    if sample.share(_NOTHING, np.inf) == 0:
        return f"the images show nothing but air: no value is above {_NOTHING} HU"
    if not sample.whole:
        return None
    reasons = []
    middle = len(sample.mean) // 2  # where a head has most of its skull, so that one slice decides
    if all(_surrounded(one) < 0.2 for one in (*sample.mean[middle:], *sample.mean[:middle])):
        reasons.append("no skull surrounds soft tissue")
    if (lungs := float(np.mean((sample.mean > -930) & (sample.mean < -600)))) > 0.15:
        reasons.append(f"lungs fill {lungs:.0%} of the images")
    reasons += _unlike_in_size(sample)
    return f"the images may not show a head: {', '.join(reasons)}" if reasons else None


# The longer side of a head with its holder, and of an infant's head.
_WIDEST_MM, _NARROWEST_MM = 300.0, 80.0
# Width of a head over its length, with the holder. The lower quartile of slices, since slices of a removed face are
# short: to 1.26 in good series, to 1.34 without the face, from 1.44 if columns are doubled. The median: 0.75 or more
# in good series, to 0.65 if rows are doubled.
_BROADEST, _LONGEST = 1.39, 0.6


def _unlike_in_size(sample: _Sample) -> list[str]:
    boxes = [box for one in sample.mean if min(box := _box(one)) > 0]
    if not boxes:
        return ["the body is 0 mm long or wide"] if sample.pixel_mm is not None else []
    reasons = []
    if sample.pixel_mm is not None:
        rows_mm, columns_mm = sample.pixel_mm
        typical = float(np.median([max(rows * rows_mm, columns * columns_mm) for rows, columns in boxes]))
        if typical > _WIDEST_MM or typical < _NARROWEST_MM:
            reasons.append(f"the body is {typical:.0f} mm long or wide")
    ratios = [columns / (rows * sample.aspect) for rows, columns in boxes]
    quarter, shape = np.quantile([1 / ratio for ratio in ratios] if sample.exchanged else ratios, (0.25, 0.5)).tolist()
    if shape < _LONGEST or quarter > _BROADEST:
        reasons.append(f"the body is {shape:.2f} times as wide as long: check Pixel Spacing")
    return reasons


def _sampled(volume: HounsfieldVolume) -> _Sample:
    count = len(volume.hounsfield)
    some = volume.hounsfield[:: -(-count // _SLICES)]
    step = max(1, -(-max(some.shape[1:]) // SIDE))
    rows, columns = (size // step * step for size in some.shape[1:])
    cut, places = some[:, :rows, :columns], (0, step // 2) if step > 1 else (0,)
    parts = [cut[:, down::step, across::step] for down in places for across in places]
    mean = np.zeros(parts[0].shape, dtype=np.float32)
    for part in parts:
        mean += part
    mean /= len(parts)
    spacing = volume.slice_spacing_mm
    whole = count >= _WHOLE_SLICES if spacing is None else spacing * count >= _WHOLE_MM
    rows_mm, columns_mm = volume.spacing_mm[1:]
    return _Sample(
        fine=some[:: -(-len(some) // 4), ::8],
        thin=np.ascontiguousarray(parts[0]),
        mean=mean,
        whole=whole,
        pixel_mm=(rows_mm * step, columns_mm * step) if rows_mm and columns_mm else None,
        aspect=rows_mm / columns_mm if rows_mm and columns_mm else volume.aspect_ratio or 1.0,
        exchanged=AxisChange.of(volume.orientation).exchanged,
    )


def _constant(sample: _Sample, limit: float) -> float:
    """Share of the most frequent value below ``limit``: padding that the header does not declare."""
    values = sample.thin[sample.thin < limit]
    return int(np.unique(values, return_counts=True)[1].max()) / sample.thin.size if values.size else 0.0


def _surrounded(one: NDArray[np.float32]) -> float:
    """Share of the body in one slice that has bone to the left, right, front and back."""
    body, bone = one > BODY, one > SKULL
    if float(body.mean()) < 0.02:
        return 0.0
    return float((between(bone) & body & ~bone).sum() / body.sum())


def _box(one: NDArray[np.float32]) -> tuple[int, int]:
    """Return the rows and columns around the body; rows and columns that hold few pixels do not count."""
    body = one > BODY
    sides = [np.flatnonzero(body.sum(axis) > 0.1 * body.shape[axis]) for axis in (1, 0)]
    if any(side.size == 0 for side in sides):
        return 0, 0
    return int(sides[0][-1] - sides[0][0] + 1), int(sides[1][-1] - sides[1][0] + 1)
