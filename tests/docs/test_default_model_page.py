"""The page on the default model gives the comparison of its cards, and the card is refitted from the stored scores."""

import importlib.util
import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from hemoscope.inference.bundle import ModelBundle, load_bundle
from hemoscope.inference.calibration import Proportion
from hemoscope.inference.card import ModelCard
from hemoscope.labels import LABELS

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = REPOSITORY / "experiments" / "results" / "default"
PAGE = REPOSITORY / "docs" / "explanation" / "default-model.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """``experiments/refit_card.py`` as a module."""
    spec = importlib.util.spec_from_file_location("refit_card", REPOSITORY / "experiments" / "refit_card.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def card_of(version: str) -> ModelCard:
    return ModelCard.from_json(json.loads((RUN / f"card-{version}.json").read_text()))


@pytest.fixture(scope="module")
def earlier() -> ModelCard:
    return card_of("2")


def test_the_page_gives_every_figure_of_the_earlier_cards_as_the_script_prints_it(
    script: ModuleType, earlier: ModelCard
) -> None:
    card, lines = card_of("2.3"), set(PAGE.read_text().splitlines())
    printed = (*script.comparison(earlier, card), *script.fold_ranges(RUN, card))
    assert not [line for line in printed if line not in lines]


def test_the_page_gives_every_figure_by_slice_of_version_2_4_as_the_script_prints_it(script: ModuleType) -> None:
    lines, by_slice = set(PAGE.read_text().splitlines()), False
    expected = []
    for line in script.comparison(card_of("2.3"), card_of("2.4")):
        if "AUROC, version" in line:
            by_slice = "by slice" in line
        if line and (by_slice or line.startswith("| slice,")):
            expected.append(line)
    assert len(expected) == len(LABELS) + 2 * (len(LABELS) + 2)  # points, and two tables with their heads
    assert not [line for line in expected if line not in lines]


def test_the_shipped_card_is_fitted_from_the_stored_scores(script: ModuleType) -> None:
    """Nobody edits a card by hand: a card refitted from the record has the same figures."""
    bundle = load_bundle(None)
    words = RUN / "statements.toml"
    again = script.refitted(
        RUN, bundle, version=bundle.card.version, tables=[RUN / "rsna-dicom.json"], statements=words
    )
    assert list(script.comparison(bundle.card, again)) == list(script.comparison(bundle.card, bundle.card))
    assert again.limits_of_use == bundle.card.limits_of_use
    assert again.established == bundle.card.established
    assert again.errors == bundle.card.errors
    assert again.statements is not None
    assert bundle.card.statements is not None
    date = bundle.card.statements.release_date
    assert replace(again.statements, release_date=date) == bundle.card.statements


def test_version_2_1_serves_what_version_2_served(script: ModuleType, earlier: ModelCard) -> None:
    card = load_bundle(None).card
    assert card.files == earlier.files  # the same graph
    assert script.same_model(card, earlier)
    assert card.established == earlier.established
    before, after = dict(script.points_of(earlier)), dict(script.points_of(card_of("2.3")))
    assert [point.threshold for point in after.values()] == pytest.approx([p.threshold for p in before.values()])


def test_the_page_gives_the_strata_of_the_shipped_card() -> None:
    def share(found: Proportion | None) -> str:
        return "-" if found is None else f"{found.value:.2f}, {found.hits} of {found.rows}".removeprefix("0")

    lines, strata = set(PAGE.read_text().splitlines()), load_bundle(None).card.strata
    assert strata
    assert len(strata[0].strata) == 11
    for one in strata[0].strata:
        assert f"| {one.kind}: {one.name} | {share(one.found)} | {share(one.false_alarms)} |" in lines


def test_the_pages_give_the_rule_for_unsure_studies_of_the_shipped_card() -> None:
    def share(found: Proportion | None) -> str:
        assert found
        value, low, high = (f"{one:.2f}".removeprefix("0") for one in (found.value, found.low, found.high))
        return f"{value} ({low} to {high}), {found.hits} of {found.rows}"

    rule, lines = load_bundle(None).card.unsure, set((PAGE.parent / "slice-to-study.md").read_text().splitlines())
    assert rule
    for one in rule.sets:
        found = one.performance
        assert found
        shares = (found.unsure, found.not_low, found.not_high, found.low_without, found.high_with)
        low, high = (f"{edge:.2f}".removeprefix("0") for edge in (one.low, one.high))
        use = ", in use" if one is rule.used else ""
        assert f"| {one.alpha:g}{use} | {low} to {high} | {' | '.join(map(share, shares))} |" in lines


def test_version_2_4_changes_slices_and_the_rule_for_unsure_studies_alone() -> None:
    card, before = load_bundle(None).card, card_of("2.3")
    assert card.files == before.files  # the same graph
    assert card.calibration == before.calibration
    assert card.operating_points.study == before.operating_points.study
    assert card.operating_points.urgent == before.operating_points.urgent
    assert card.slice_rule is not None
    assert card.slice_rule.width_mm == 7.5
    assert card.unsure is not None
    assert (before.slice_rule, before.unsure) == (None, None)


def test_versions_2_5_to_2_7_add_words_and_errors_alone() -> None:
    card = load_bundle(None).card
    assert replace(card, version="2.4", statements=None, errors=None) == card_of("2.4")


def test_a_run_that_is_not_the_bundles_own_is_refused(script: ModuleType, earlier: ModelCard, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("experiment.json", "dataset.json", "slices.csv"):
        (other / name).write_bytes((RUN / name).read_bytes())
    for fold in range(5):
        (other / f"fold-{fold}").mkdir()
        source = RUN / f"fold-{(fold + 1) % 5}" / "scores.csv"
        text = source.read_text().splitlines()
        changed = [text[0], *(line.replace(",-", ",-1", 1) for line in text[1:])]
        (other / f"fold-{fold}" / "scores.csv").write_text("\n".join(changed) + "\n")
    with pytest.raises(SystemExit, match="is not the run of hemoscope-default"):
        script.refitted(other, load_bundle(None), version="3", tables=[])


def test_the_page_gives_the_paired_differences_that_the_script_prints() -> None:
    code = runpy.run_path(str(REPOSITORY / "experiments" / "compare.py"))
    table = code["paired"](RUN, RUN.parent / "trial-288")
    slices, patients = ([text.replace("0.", ".") for text in column.cells] for column in table.columns[1:])
    page = (REPOSITORY / "docs/explanation/default-model.md").read_text()
    for label, by_slice, by_patient in zip(LABELS, slices, patients, strict=True):
        if by_slice.endswith("(-)"):  # four patients
            assert f"| {label.value} | {by_slice.removesuffix('(-)')}(4 patients: no interval) |" in page
        else:
            assert f"| {label.value} | {by_slice} | {by_patient} |" in page


def test_a_bundle_of_several_seeds_is_refused_and_float16_weights_stay_stated(script: ModuleType) -> None:
    bundle = load_bundle(None)

    def described(more: str) -> ModelBundle:
        return replace(bundle, card=replace(bundle.card, description=f"{bundle.card.description} {more}"))

    words = "Scores are means over 2 networks of one recipe (seeds 1 and 2), of a slice."
    with pytest.raises(SystemExit, match="averages networks of several seeds"):
        script.refitted(RUN, described(words), version="3", tables=[])
    again = script.refitted(RUN, described(script.HALF_WEIGHTS), version="3", tables=[])
    assert again.description.endswith(script.HALF_WEIGHTS)
