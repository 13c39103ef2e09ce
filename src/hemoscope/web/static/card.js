// The model card: which model this is, its performance, and its limits of use.

import { el } from "./element.js";
import { probability } from "./format.js";
import { LABELS, labelName } from "./labels.js";
import { ruleWords } from "./rule_words.js";

const PAGE = "/api/v1/model/card.html";
const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
const share = (found) => (found ? `${number(found.value)} (${number(found.low)} to ${number(found.high)}), ${found.hits} of ${found.rows}` : "–");

function estimate(score) {
  if (!score) return "–";
  return score.low === null ? number(score.value) : `${number(score.value)} (${number(score.low)} to ${number(score.high)})`;
}

function table(caption, heads, rows) {
  const head = el("tr", {}, heads.map((text) => el("th", { scope: "col", text })));
  const line = ([first, ...rest]) => el("tr", {}, el("th", { scope: "row", text: first }), rest.map((text) => el("td", { text })));
  return el("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": caption }, el("table", { class: "card-table" }, el("caption", { text: caption }), el("thead", {}, head), el("tbody", {}, rows.map(line))));
}

const METHODS = {
  cross_fitted: "cross-fitted, each patient decided by thresholds fitted on the other patients",
  test_set: "of these thresholds on the test set",
};

/** Sensitivity and specificity of a point as two cells; those in sample are marked. */
function rateCells(point) {
  if (point.performance) return [share(point.performance.sensitivity), share(point.performance.specificity)];
  return [point.sensitivity, point.specificity].map((value) => (value === null ? "–" : `${number(value)}*`));
}

function measuredOn(points) {
  const methods = [...new Set(points.filter((point) => point.performance).map((point) => METHODS[point.performance.method]))];
  if (points.some((point) => !point.performance && point.sensitivity !== null)) methods.push("with an asterisk, in sample, on the patients that the threshold was chosen on: expect lower values");
  return methods.length ? `Sensitivity and specificity: ${methods.join("; ")}. With 95% intervals and counts of studies.` : "";
}

function operatingPoints(card) {
  const { study, urgent } = card.operating_points;
  const rows = LABELS.map((label) => {
    const point = study[label];
    const validation = card.established[label] ? "established" : "not established";
    return [labelName(label), validation, probability(point.threshold), ...rateCells(point), ruleWords(point.rule)];
  });
  rows.push(["Any, urgent", "", probability(urgent.threshold), ...rateCells(urgent), ruleWords(urgent.rule)]);
  const heads = ["Label", "Validation", "Threshold", "Sensitivity", "Specificity", "Rule"];
  return [table("Thresholds for a study", heads, rows), el("p", { class: "faint", text: measuredOn([...Object.values(study), urgent]) })];
}

/** When a study is unsure, and what that does, for each alpha; the one in use first. */
function unsure(card) {
  if (!card.unsure) return [];
  const used = ({ alpha }) => alpha === card.unsure.alpha;
  const sets = [...card.unsure.sets].sort((a, b) => used(b) - used(a));
  const rows = sets.map((one) => {
    const { unsure: abstained, not_low, not_high, low_without, high_with } = one.performance ?? {};
    return [`${one.alpha}${used(one) ? ", in use" : ""}`, `${probability(one.low)} to ${probability(one.high)}`, ...[abstained, not_low, not_high, low_without, high_with].map(share)];
  });
  const heads = ["Alpha", "Unsure from", "Studies unsure", "With hemorrhage, not low", "Without, not high", "Low, without hemorrhage", "High, with hemorrhage"];
  const words = "Two conformal quantiles of the probability of any hemorrhage. At most a share alpha of the studies with hemorrhage is meant to lie below the range, and at most alpha of those without above it. With 95% intervals and counts of studies.";
  return [table("Unsure studies", heads, rows), el("p", { class: "faint", text: words })];
}

function calibrationError(score) {
  if (!score.ece) return "–";
  const error = number(score.ece.value, 3);
  return score.ece_if_calibrated ? `${error} (${number(score.ece_if_calibrated.value, 3)})` : error;
}

/** One evaluation: what it is, then its tables of ranking and of calibration. */
function scores(one) {
  const counted = one.level === "slice" ? "slices" : "studies";
  const of = LABELS.map((label) => [labelName(label), one.labels[label]]);
  const ranking = of.map(([name, score]) => [
    name,
    score.auroc ? estimate(score.auroc) : (score.reason ?? "–"),
    estimate(score.average_precision),
    `${score.n_positive} (${score.n_positive_patients})`,
  ]);
  const calibration = of.map(([name, score]) => [name, estimate(score.slope), estimate(score.observed_expected), calibrationError(score)]);
  return [
    el("p", { class: "faint", text: `${one.name}: ${one.n_images} ${counted} of ${one.n_patients} patients. ${one.description}` }),
    table(`Ranking, ${one.name}`, ["Label", "AUROC", "Average precision", "Positive (patients)"], ranking),
    table(`Calibration, ${one.name}`, ["Label", "Slope", "Observed/expected", "Calibration error"], calibration),
  ];
}

function strata(one) {
  const rows = one.strata.map(({ kind, name, found, false_alarms }) => [`${kind}: ${name}`, share(found), share(false_alarms)]);
  const words = `Slices flagged where any hemorrhage has specificity ${number(one.specificity)}.`;
  return [table(`Strata, ${one.name}`, ["Slices", "Found, of those with hemorrhage", "Flagged, of the others"], rows), el("p", { class: "faint", text: words })];
}

function prevalence(site, onPrevalence) {
  const value = site.prevalence === null ? "" : String(Number((site.prevalence * 100).toFixed(2)));
  const shown = value ? `${value}% of the studies here` : "not set";
  if (!onPrevalence) return el("p", {}, el("strong", { text: "Prevalence of any hemorrhage: " }), shown);
  const input = el("input", { id: "prevalence", type: "number", min: 0.1, max: 99, step: 0.1, value, inputmode: "decimal" });
  const form = el("form", { class: "inline" }, el("label", { for: "prevalence", text: "Prevalence of any hemorrhage here in %" }), input, el("button", { type: "submit", class: "small" }, "Set"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onPrevalence(input.value === "" ? null : Number(input.value) / 100);
  });
  return form;
}

const SCORES_MEANING =
  "In brackets: 95% intervals by patient; after the calibration error, its mean if the probabilities were calibrated. Calibrated probabilities have slope 1 and observed/expected 1. No interval includes how much scores change if the network is trained again.";
const list = (texts) => el("ul", {}, texts.map((text) => el("li", { text })));
const data = (one) => `${one.name} ${one.version}, ${one.license}. ${one.doi ? `DOI ${one.doi}. ` : ""}${one.attribution} Changes: ${one.changes}`;

/** Fill the dialog; `onPrevalence(share)` is given to admins. */
export function fillCard(dialog, card, site, onPrevalence) {
  dialog.querySelector("h2").textContent = `Model card: ${card.name} ${card.version}`;
  dialog.querySelector(".dialog-body").replaceChildren(
    el("p", { class: "card-disclaimer", text: card.disclaimer }),
    el("p", { text: card.description }),
    el("p", {}, el("a", { href: PAGE, target: "_blank", rel: "noopener", text: "The whole card as a page" }), ", in the shape of CHAI's Applied Model Card."),
    el("h3", { text: "Limits of use" }),
    list(card.limits_of_use),
    el("h3", { text: "At this site" }),
    prevalence(site, onPrevalence),
    ...operatingPoints(card),
    ...unsure(card),
    el("h3", { text: "Performance" }),
    ...card.scores.flatMap(scores),
    el("p", { class: "faint", text: SCORES_MEANING }),
    ...(card.strata ?? []).flatMap(strata),
    el("h3", { text: "Training data" }),
    list(card.training_data.map(data)),
    el("p", { class: "faint fingerprint", text: card.sha256 ? `Bundle SHA-256 ${card.sha256}` : "" }),
  );
}
