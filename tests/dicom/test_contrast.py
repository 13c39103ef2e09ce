"""Whether a header states that a contrast agent was given: attributes, negations and words of several languages."""

import pytest
from pydicom.dataset import Dataset

from hemoscope.dicom.contrast import ContrastEvidence, stated_contrast, states_contrast
from hemoscope.dicom.read import read_slice

NO_AGENT = [
    "W/O CONTRAST",
    "WITHOUT CONTRAST",
    "NON CONTRAST",
    "NON-CONTRAST",
    "NONCONTRAST",
    "NONE GIVEN",
    "N/A",
    "-",
    "--",
    "NONE",
    "NO",
    "",
    "no contrast",
    "Without",
    "W/O",
    "WO",
    "OHNE KM",
    "ohne Kontrastmittel",
    "SANS INJECTION",
    "sans contraste",
    "SIN CONTRASTE",
    "SENZA MDC",
    "No IV contrast",
    "NOT GIVEN",
    "none",
    "n",
    "NIL",
    "UNENHANCED",
    "NATIV",
    "0",
    "0ml",
    "Non contrast",
    "KEIN KM",
    "sem contraste",
    "zonder contrast",
    "NO ORAL CONTRAST",
    "W/OUT CONTRAST",
    "NON CON",
    "UNKNOWN",
    "*",
    "Contrast: none",
    "WITHOUT IV CONTRAST",
    "pas de contraste",
    "NO CONTRAST GIVEN",
    "non injecté",
    "NO AGENT ADMINISTERED",
    "None administered",
    "NON-ENHANCED",
    "nativ ohne KM",
    "IV contrast not given",
    "0.0 ml",
    "o. KM",
    "s.c.",
    "NC",
    "C -",
    "ikke kontrast",
    "kontrast yok",
    "non iniettato",
    "CONTRAST=N",
    "Oral: none",
    "не введен",
    "без контраста",
    "造影なし",
    "平扫",
    "无",
]
AGENT = [
    "Iomeron",
    "ISOVUE300/100",
    "CE",
    "OMNIPAQUE",
    "100cc Omni",
    "IV",
    "contrast",
    "NON-IONIC",
    "NONIONIC CONTRAST",
    "IODINE",
    "APPLIED",
    "YES",
    "Y",
    "&Oral & IV",
    "MIT KM",
    "VISIPAQUE 320 100ML",
    "x",
    "Iohexol",
    "CONTRAST AGENT",
    "IV CONTRAST",
    "ORAL/IV",
]
WITHOUT = [
    "HEAD W/O CE",
    "HEAD NON CE",
    "BRAIN PRE CE",
    "CT HEAD NO CE",
    "HEAD W/O 1.25",
    "CT HEAD WITHOUT CONTRAST",
    "HEAD WO",
    "Head w/o contrast",
    "NCCT",
    "SCHAEDEL OHNE KM",
    "Schädel nativ",
    "CRANE SANS INJECTION",
    "TETE SANS IV",
    "CABEZA SIN CONTRASTE",
    "CRANIO SENZA MDC",
    "HEAD NON CON",
    "NON-CONTRAST HEAD",
    "HEAD C-",
    "5/5mm Plain",
    "PRE CONTRAST",
    "CT, HEAD/BRAIN WO CONTRAST",
    "Cerebral Natif 2.0",
    "BRAIN W/O CM",
    "HEAD W-O CONTRAST",
    "without  IV contrast",
    "Pre-contrast head",
    "C- HEAD",
    "CRANE S/INJ",
    "HOOFD ZONDER CONTRAST",
    "HOOFD BLANCO",
    "head wo/contrast",
    "S/C CABEZA",
    "S/ CONTRASTE",
]
WITH = [
    "HEAD CE",
    "CE HEAD 5.0",
    "Brain +CE",
    "BRAIN POST CE",
    "WITH CE",
    "HEAD W CONTRAST",
    "CT HEAD WITH CONTRAST",
    "HEAD W/ CONTRAST",
    "HEAD W/CONTRAST",
    "Schaedel mit KM",
    "Schädel KM+",
    "CRANE AVEC INJECTION",
    "CRANE AVEC IV",
    "CABEZA CON CONTRASTE",
    "CRANIO CON MDC",
    "HEAD C+",
    "HEAD +C",
    "+C HEAD",
    "POST CONTRAST",
    "AX POST",
    "POST",
    "HEAD POST GAD",
    "CTA HEAD",
    "CT ANGIO",
    "4cc sec 150cc D3D on",
    "CECT",
    "CE-CT HEAD",
    "Contrast enhanced",
    "HEAD POST INJ",
    "Abdomen C+/Abdomen",
    "nach KM",
    "APRES INJECTION",
    "C+ 5mm",
    "PERFUSION",
    "HEAD WITH",
    "HEAD W IV CON",
    "with iv contrast",
    "HEAD ENHANCED",
    "HEAD MIT",
    "CRANE AVEC",
    "CABEZA C/C",
    "C/ CONTRASTE",
    "HOOFD MET CONTRAST",
    "BRAIN W/",
    "ANGIO-CT",
    "4 cc/s 100 cc",
    "VENOUS PHASE",
    "head c +",
]
UNDECIDED = [
    "AXIAL 5.0",
    "HEAD W/WO",
    "HEAD W & W/O CONTRAST",
    "HEAD WITH AND WITHOUT CONTRAST",
    "HEAD W/O & W CONTRAST",
    "SENZA E CON",
    "COLLO CRANIO TOTBODY SENZA E CON",
    "SCHAEDEL MIT UND OHNE KM",
    "SIN Y CON CONTRASTE",
    "SANS ET AVEC INJECTION",
    "BRAIN",
    "HEAD POST OP",
    "POST TRAUMA",
    "POSTERIOR FOSSA",
    "EDGE ENHANCED",
    "High contrast",
    "BONE",
    "Head 5.0 H31s",
    "Lv2",
    "HELICAL CHEST",
    "CONE BEAM",
    "CONTROL",
    "W1 TRAUMA",
    "SINUS",
    "C-SPINE",
    "CT C SPINE",
    "POST FOSSA 2.5",
    "HEAD+NECK",
    "COMPUTED TOMOGRAPHY",
    "3.0 HEAD S",
    "WWO CONTRAST",
    "HEAD W WO",
    "SPC",
    "Coronal",
    "IV",
    "POST-OP HEAD",
    "A/P",
    "POST EVD",
    "CONTRAST PRE AND POST",
    "Low contrast",
    "STD+",
    "Neuro 1+1",
    "CT HEAD C- C+",
    "TETE S",
    "SANTA",
    "BRAIN PRE/POST CONTRAST",
    "Head 0.6 mm",
    "Contrôle",
    "e+1",
    "IV 5mm",
    "CRANE C",
    "WO W",
]


@pytest.mark.parametrize(
    "agent",
    ["造影剤", "碘海醇", "Контраст", "Omnipaque w/o adverse reaction", "IV contrast no complications"],
)
def test_agents_of_other_scripts_and_without_harm_were_given(agent: str) -> None:
    assert stated_contrast(ContrastEvidence(agent=agent)) == agent


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("Kopf m. KM", True),
        ("голова с контрастом", True),  # noqa: RUF001
        ("頭部造影", True),
        ("头颅增强", True),
        ("HEAD INFUSED", True),
        ("HEAD NON-INFUSED", False),
        ("HEAD W O CONTRAST", False),
        ("голова без контраста", False),
        ("頭部単純", False),
    ],
)
def test_descriptions_of_other_scripts_and_wordings(text: str, stated: bool) -> None:
    assert states_contrast(text) is stated


@pytest.mark.parametrize("agent", NO_AGENT)
def test_an_agent_that_is_denied_or_empty_is_none(agent: str) -> None:
    assert stated_contrast(ContrastEvidence(agent=agent)) is None
    assert stated_contrast(ContrastEvidence(coded=(agent,))) is None


@pytest.mark.parametrize("agent", AGENT)
def test_any_other_agent_was_given(agent: str) -> None:
    assert stated_contrast(ContrastEvidence(agent=agent)) == agent


@pytest.mark.parametrize(
    ("text", "stated"),
    [(text, False) for text in WITHOUT] + [(text, True) for text in WITH] + [(text, None) for text in UNDECIDED],
)
def test_descriptions(text: str, stated: bool | None) -> None:
    assert states_contrast(text) is stated
    assert states_contrast(text.lower()) is stated


class TestPrecedence:
    @pytest.mark.parametrize(
        ("evidence", "given"),
        [
            ({"series": "HEAD W/O", "study": "CT HEAD WITH CONTRAST"}, False),
            ({"series": "HEAD", "study": "CT HEAD WITH CONTRAST"}, True),
            ({"series": "HEAD", "study": "CT HEAD W & W/O CONTRAST"}, False),
            ({"series": "HEAD", "protocol": "Schädel mit KM", "study": "CT OHNE KM"}, True),
            ({"agent": "NONE", "study": "CT HEAD WITH CONTRAST"}, False),
            ({"agent": "NONE", "volume_ml": 100.0}, False),
            ({"agent": "NONE", "series": "POST CONTRAST"}, True),
            ({"agent": "Iomeron", "series": "HEAD W/O"}, True),
            ({"volume_ml": 80.0}, True),
            ({"volume_ml": 0.0}, False),
            ({"volume_ml": 80.0, "series": "HEAD W/O"}, False),
            ({"ingredient": "IODINE"}, True),
            ({"agent": "Iomeron", "administered": "NO"}, False),
        ],
    )
    def test_the_closer_statement_decides(self, evidence, given: bool) -> None:
        assert (stated_contrast(ContrastEvidence(**evidence)) is not None) is given


class TestFiles:
    @pytest.mark.parametrize(
        ("changes", "given"),
        [
            ({"ContrastBolusAgent": "W/O CONTRAST"}, False),
            ({"ContrastBolusAgent": "", "ContrastBolusRoute": "IV"}, False),
            ({"ContrastBolusAgent": "Omnipaque"}, True),
            ({"ContrastBolusVolume": "100"}, True),
            ({"SeriesDescription": "4cc sec 150cc D3D on"}, True),
            ({"ProtocolName": "CRÂNE AVEC INJECTION"}, True),
            ({"StudyDescription": "CT HEAD W/ CONTRAST"}, True),
        ],
    )
    def test_the_attributes_of_a_file(self, make_slice, as_bytes, changes, given: bool) -> None:
        assert (read_slice(as_bytes(make_slice(**changes))).header.contrast_agent is not None) is given

    @pytest.mark.parametrize(("meaning", "given"), [("Iodinated contrast agent", True), ("None", False)])
    def test_the_coded_agent(self, make_slice, as_bytes, meaning: str, given: bool) -> None:
        code = Dataset()
        code.CodeMeaning = meaning
        header = read_slice(as_bytes(make_slice(ContrastBolusAgentSequence=[code]))).header
        assert (header.contrast_agent is not None) is given
