"""All that is fuzzed, by kind."""

from . import dicom_targets, federated_targets, model_targets, text_targets
from .target import Target

TARGETS: dict[str, Target] = {
    **dicom_targets.TARGETS,
    **federated_targets.TARGETS,
    **model_targets.TARGETS,
    **text_targets.TARGETS,
}
