"""The findings as a Comprehensive 3D SR: TID 1500 (PS3.16), as IHE AI Results asks for, a group for each label.

Each group has a tracking identifier, the finding's code, its presence, its calibrated probability, the key slices and
the algorithm. The report is preliminary and not verified: it is a program's, and research use only.
"""

from highdicom import UID
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset

from hemoscope.inference.findings import Finding, StudyFindings, Triage
from hemoscope.labels import CodedTerm
from hemoscope.reports.dicom_results.derived_uids import derived_uid
from hemoscope.reports.dicom_results.evidence import MANUFACTURER, evidence_of, finish
from hemoscope.reports.dicom_results.report_options import ReportOptions
from hemoscope.reports.dicom_results.source_study import SourceImage, SourceStudy
from hemoscope.reports.dicom_results.superseded import Superseded, series_description
from hemoscope.reports.report import ModelIdentity
from hemoscope.version import DISCLAIMER, __version__

SERIES_NUMBER = 7400
_TITLE = CodedTerm("126000", "DCM", "Imaging Measurement Report")
_PROCEDURE = CodedTerm("24725-4", "LN", "CT Head")
_DEVICE = CodedTerm("121007", "DCM", "Device")
_PRESENCE = CodedTerm("705057003", "SCT", "Presence")
_PRESENT = CodedTerm("52101004", "SCT", "Present")
_ABSENT = CodedTerm("272519000", "SCT", "Absent")
_UNDETERMINED = CodedTerm("373068000", "SCT", "Undetermined")
_PROBABILITY = CodedTerm("122157", "DCM", "Probability")
_NO_UNITS = CodedTerm("1", "UCUM", "no units")
_AI = CodedTerm("123110", "DCM", "Artificial Intelligence")
_DIGITS = 4  # of a probability: more would claim a precision that no calibration has


def presence(finding: Finding, triage: Triage, options: ReportOptions) -> CodedTerm:
    """Return what the report says of a label: present, undetermined, or absent if the site asks for it (CID 240).

    Nothing is absent in a study that the model is unsure about.
    """
    if not finding.established:
        return _UNDETERMINED
    if finding.present:
        return _PRESENT
    return _ABSENT if options.report_absent and triage is not Triage.UNSURE else _UNDETERMINED


def shown_value(probability: float) -> float:
    """Return a probability as reports in DICOM state it."""
    return round(probability, _DIGITS)


def structured_report(
    source: SourceStudy,
    findings: StudyFindings,
    model: ModelIdentity,
    *,
    series_instance_uid: str,
    sop_instance_uid: str,
    options: ReportOptions = ReportOptions(),  # noqa: B008 - frozen
    superseded: Superseded | None = None,
) -> Dataset:
    """Build the report, complete but for its time of creation, which is now.

    Args:
        source: of the study that was read.
        findings: of that study.
        model: that gave the findings.
        series_instance_uid: of the report's series.
        sop_instance_uid: of the report.
        options: of the site.
        superseded: the report of an earlier reading, which this one follows (PS3.3 C.17.2).
    """
    keys = [source.images[ref.index] for one in findings.findings for ref in one.slices]
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(model)),
        procedure_reported=_code(_PROCEDURE),
        imaging_measurements=[_group(source, findings, finding, model, options) for finding in findings.findings],
        title=_code(_TITLE),
        referenced_images=evidence_of(source, keys) or None,
    )
    report = Comprehensive3DSR(
        evidence=evidence_of(source, source.images),
        content=content[0],
        series_instance_uid=series_instance_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=sop_instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=findings.complete,
        is_final=False,
        is_verified=False,
        previous_versions=None if superseded is None else [superseded.reference.data_set()],
        series_description=series_description("findings", superseded),
        manufacturer_model_name=model.name,
        software_versions=__version__,
    )
    if not findings.complete:
        report.CompletionFlagDescription = "The head was not read in full"
    return finish(report, source)


def _observer(model: ModelIdentity) -> ObserverContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=UID(derived_uid("device", __version__, model.sha256)),
        name="Hemoscope",
        manufacturer_name=MANUFACTURER,
        model_name=f"{model.name} {model.version}",
    )
    return ObserverContext(observer_type=_code(_DEVICE), observer_identifying_attributes=device)


def _group(
    source: SourceStudy, findings: StudyFindings, finding: Finding, model: ModelIdentity, options: ReportOptions
) -> MeasurementsAndQualitativeEvaluations:
    code = options.codes[finding.label]
    algorithm = AlgorithmIdentification(
        name=f"Hemoscope, model {model.name}",
        version=f"{__version__}, model {model.version}",
        parameters=_parameters(finding, model),
        family=_code(_AI),
    )
    images = [source.images[ref.index] for ref in finding.slices]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=UID(derived_uid("finding", findings.study_instance_uid, finding.label.value)),
            identifier=finding.label.display,
        ),
        finding_type=_code(code.finding),
        algorithm_id=algorithm,
        finding_sites=None if code.site is None else [FindingSite(_code(code.site))],
        measurements=[Measurement(_code(_PROBABILITY), shown_value(finding.probability), _code(_NO_UNITS))],
        qualitative_evaluations=[
            QualitativeEvaluation(_code(_PRESENCE), _code(presence(finding, findings.triage, options)))
        ],
        source_images=[_source_image(image) for image in images] or None,
    )


def _parameters(finding: Finding, model: ModelIdentity) -> list[str]:
    established = "yes" if finding.established else "no: validation does not support this label"
    return [
        f"model bundle sha256 {model.sha256}",
        f"precision {model.precision}",
        f"label {finding.label.value}",
        f"threshold of the study {shown_value(finding.threshold)}",
        f"established {established}",
        DISCLAIMER,
    ]


def _source_image(image: SourceImage) -> SourceImageForMeasurementGroup:
    frames = None if image.frame is None else [image.frame]
    return SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid, frames)


def _code(term: CodedTerm) -> CodedConcept:
    return CodedConcept(term.value, term.scheme, term.meaning)
