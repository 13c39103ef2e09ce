"""What a card states in words: what is true of every model that Hemoscope exports, and what its exporter adds."""

import tomllib
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

from hemoscope.errors import ConfigError
from hemoscope.inference.card import parse_dataclass
from hemoscope.inference.card_statements import STATEMENTS, Statements
from hemoscope.training.experiment import Experiment

_GIVEN = Statements()
# True of every model, because the software makes it so. What is true of one model is left to its exporter.
SOFTWARE = Statements(
    release_stage="Research. Not a medical device, not for diagnosis or treatment decisions.",
    compatibility="None with health records. Images arrive as DICOM or NIfTI files or from a DICOM node (PACS); "
    "results leave as tables, JSON, CSV, reports, pictures and DICOM objects.",
    regulatory_approval="None anywhere.",
    keywords="intracranial hemorrhage, non-contrast head CT, detection, triage research, heat maps",
    intended_use="Research on finding intracranial hemorrhage in head CT: Hemoscope scores every slice and the "
    "study, orders a worklist of research data by urgency, and shows where the score comes from. A reader looks at "
    "every scan, whatever it prints.",
    primary_users="Researchers, engineers and physicists who evaluate or train such models, and physicians who take "
    "part in research.",
    how_to_use="`hemoscope predict` reads files, `hemoscope serve` shows a worklist and a viewer, `hemoscope listen` "
    "receives from a PACS. Evaluate and calibrate on your own labelled scans first: `hemoscope evaluate`, "
    "`hemoscope tune`.",
    out_of_scope="Diagnosis, triage of real patients and treatment decisions. Scans with contrast medium, CT "
    "angiography, perfusion, series with only a bone kernel, scans after surgery, drains, coils; blood that has become "
    "as dark as brain. A study without a finding is not a study without hemorrhage.",
    risk_level="Not classified: it is no medical device. A missed hemorrhage can be fatal, so nobody may rely on it.",
    outputs="Calibrated probabilities of any hemorrhage and of five types, by slice and by study; findings at "
    "the card's thresholds, of established labels alone; triage (immediate, prompt, unsure, routine); key slices, "
    "heat maps.",
    maintenance="None is scheduled. Figures of a card do not change after its export; a site measures its own with "
    "`hemoscope evaluate`, and sees in the reading room how often readers disagree.",
    security="The model runs on the site's own machine and needs no network. A bundle is verified by SHA-256, and "
    "holds neither code nor pickles. The reading room has logins, roles, an audit log and content security policies. "
    "No certification.",
    transparency="Source, training recipe and the way every figure is computed are public. Heat maps are the "
    "classifier's own maps, not made after the fact.",
)


def statements_of(experiment: Experiment, given: Statements | None) -> Statements:
    """Return the statements of a card, dated today (UTC); what the exporter gives comes first."""
    own = given or _GIVEN
    derived = replace(
        SOFTWARE,
        release_date=datetime.now(UTC).date().isoformat(),
        model_type=_model_type(experiment),
        foundation_models=_INITS.get(experiment.run.init, f"Initial weights: {experiment.run.init}"),
        bias_mitigation=_bias_mitigation(experiment),
    )
    kept = {name: getattr(own, name) or getattr(derived, name) for name in STATEMENTS}
    reasons = {name: reason for name, reason in (own.not_stated or {}).items() if kept[name] is None}
    return Statements(**kept, not_stated=reasons or None)


def read_statements(path: Path) -> Statements:
    """Read a TOML file of statements by their names, and a table ``not_stated`` of reasons.

    Raises:
        ConfigError: it cannot be read, is not TOML, names something else, has a blank text, or a reason for what the
            software states.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        found = parse_dataclass(Statements, {"format": _GIVEN.format, **table}, where=path.name)
        _check(found)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        names = ", ".join(field.name for field in fields(Statements) if field.name != "format")
        msg = f"{path.name} does not hold statements for a card ({reason}). Its keys are texts: {names}"
        raise ConfigError(msg) from error
    return found


def _check(given: Statements) -> None:
    """Raise ValueError if a text is blank, or a reason would be dropped because the software states it anyway."""
    reasons = given.not_stated or {}
    texts = {name: getattr(given, name) for name in STATEMENTS} | {
        f"not_stated.{name}": reasons[name] for name in reasons
    }
    if blank := [name for name, text in texts.items() if text is not None and not text.strip()]:
        msg = f"{blank[0]} is blank: remove it, or say it"
        raise ValueError(msg)
    if stated := [name for name in reasons if name in _DERIVED or getattr(SOFTWARE, name) is not None]:
        msg = f"not_stated gives a reason for {stated[0]}, which the software states: remove it, or state it yourself"
        raise ValueError(msg)


_DERIVED = ("release_date", "model_type", "foundation_models", "bias_mitigation")  # by ``statements_of``
_INITS = {
    "imagenet": "ImageNet weights of the backbone, from an installed package. No foundation model.",
    "pretrained": "ImageNet weights of the backbone, from timm. No foundation model.",
    "none": "None: trained from random weights.",
}


def _model_type(experiment: Experiment) -> str:
    network, preprocessing = experiment.network, experiment.preprocessing
    windows = ", ".join(f"{window.center:g}/{window.width:g}" for window in preprocessing.windows)
    count = 2 * preprocessing.neighbours + 1
    slices = "one slice" if count == 1 else f"{count} slices"
    sequence = "" if experiment.sequence is None else " A sequence network refines the scores of a series."
    return (
        f"Convolutional network ({network.backbone}, head: {network.head}) on {slices} "
        f"in {len(preprocessing.windows)} windows (center/width in HU: {windows}), read at "
        f"{experiment.reading_preprocessing.size} pixels.{sequence}"
    )


def _bias_mitigation(experiment: Experiment) -> str:
    if experiment.run.split == "slice":
        return "None: the split by slice leaks between slices of a patient, as in the paper that it repeats."
    return (
        "Patients are never divided between training and scoring. Calibration and thresholds are measured on "
        "patients that they were not fitted on; a label without enough patients is not established and raises no "
        "finding. Scores are stated by age, size and place where these are known. Nothing was reweighted by group."
    )
