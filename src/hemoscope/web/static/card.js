// The model card: which model this is, its performance, and its limits of use.

import { el } from "./element.js";
import { probability } from "./format.js";
import { LABELS, labelName } from "./labels.js";
import { t } from "./messages.js";
import { ruleWords } from "./rule_words.js";

const PAGE = "/api/v1/model/card.html";
const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
const share = (found) => (found ? t("card.share", { value: number(found.value), low: number(found.low), high: number(found.high), hits: found.hits, rows: found.rows }) : "–");

function estimate(score) {
  if (!score) return "–";
  return score.low === null ? number(score.value) : t("card.interval", { value: number(score.value), low: number(score.low), high: number(score.high) });
}

function table(caption, heads, rows) {
  const head = el("tr", {}, heads.map((text) => el("th", { scope: "col", text })));
  const line = ([first, ...rest]) => el("tr", {}, el("th", { scope: "row", text: first }), rest.map((text) => el("td", { text })));
  return el("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": caption }, el("table", { class: "card-table" }, el("caption", { text: caption }), el("thead", {}, head), el("tbody", {}, rows.map(line))));
}

/** Sensitivity and specificity of a point as two cells; those in sample are marked. */
function rateCells(point) {
  if (point.performance) return [share(point.performance.sensitivity), share(point.performance.specificity)];
  return [point.sensitivity, point.specificity].map((value) => (value === null ? "–" : `${number(value)}*`));
}

function measuredOn(points) {
  const methods = [...new Set(points.filter((point) => point.performance).map((point) => t(`card.method-${point.performance.method}`)))];
  if (points.some((point) => !point.performance && point.sensitivity !== null)) methods.push(t("card.method-in-sample"));
  return methods.length ? t("card.measured", { methods: methods.join("; ") }) : "";
}

function operatingPoints(card) {
  const { study, urgent } = card.operating_points;
  const rows = LABELS.map((label) => {
    const point = study[label];
    const validation = t(card.established[label] ? "card.established" : "card.not-established");
    return [labelName(label), validation, probability(point.threshold), ...rateCells(point), ruleWords(point.rule)];
  });
  rows.push([t("card.any-urgent"), "", probability(urgent.threshold), ...rateCells(urgent), ruleWords(urgent.rule)]);
  const heads = [t("card.label"), t("card.validation"), t("card.threshold"), t("card.sensitivity"), t("card.specificity"), t("card.rule")];
  return [table(t("card.thresholds"), heads, rows), el("p", { class: "faint", text: measuredOn([...Object.values(study), urgent]) })];
}

/** When a study is unsure, and what that does, for each alpha; the one in use first. */
function unsure(card) {
  if (!card.unsure) return [];
  const used = ({ alpha }) => alpha === card.unsure.alpha;
  const sets = [...card.unsure.sets].sort((a, b) => used(b) - used(a));
  const rows = sets.map((one) => {
    const { unsure: abstained, not_low, not_high, low_without, high_with } = one.performance ?? {};
    return [used(one) ? t("card.in-use", { alpha: one.alpha }) : one.alpha, t("card.range", { low: probability(one.low), high: probability(one.high) }), ...[abstained, not_low, not_high, low_without, high_with].map(share)];
  });
  const heads = [t("card.alpha"), t("card.unsure-from"), t("card.unsure-share"), t("card.unsure-not-low"), t("card.unsure-not-high"), t("card.unsure-low-without"), t("card.unsure-high-with")];
  return [table(t("card.unsure"), heads, rows), el("p", { class: "faint", text: t("card.unsure-meaning") })];
}

function calibrationError(score) {
  if (!score.ece) return "–";
  const error = number(score.ece.value, 3);
  return score.ece_if_calibrated ? `${error} (${number(score.ece_if_calibrated.value, 3)})` : error;
}

/** One evaluation: what it is, then its tables of ranking and of calibration. */
function scores(one) {
  const evaluated = { name: one.name, count: one.n_images, patients: one.n_patients, description: one.description };
  const of = LABELS.map((label) => [labelName(label), one.labels[label]]);
  const ranking = of.map(([name, score]) => [
    name,
    score.auroc ? estimate(score.auroc) : (score.reason ?? "–"),
    estimate(score.average_precision),
    `${score.n_positive} (${score.n_positive_patients})`,
  ]);
  const calibration = of.map(([name, score]) => [name, estimate(score.slope), estimate(score.observed_expected), calibrationError(score)]);
  return [
    el("p", { class: "faint", text: t(one.level === "slice" ? "card.evaluated-slices" : "card.evaluated-studies", evaluated) }),
    table(t("card.ranking", { name: one.name }), [t("card.label"), t("card.auroc"), t("card.average-precision"), t("card.positive")], ranking),
    table(t("card.calibration", { name: one.name }), [t("card.label"), t("card.slope"), t("card.observed-expected"), t("card.calibration-error")], calibration),
  ];
}

function strata(one) {
  const rows = one.strata.map(({ kind, name, found, false_alarms }) => [`${kind}: ${name}`, share(found), share(false_alarms)]);
  const words = t("card.strata-meaning", { specificity: number(one.specificity) });
  return [table(t("card.strata", { name: one.name }), [t("card.strata-slices"), t("card.strata-found"), t("card.strata-flagged")], rows), el("p", { class: "faint", text: words })];
}

function prevalence(site, onPrevalence) {
  const value = site.prevalence === null ? "" : String(Number((site.prevalence * 100).toFixed(2)));
  const shown = value ? t("card.prevalence-value", { percent: value }) : t("card.prevalence-none");
  if (!onPrevalence) return el("p", {}, el("strong", { text: t("card.prevalence") }), ` ${shown}`);
  const input = el("input", { id: "prevalence", type: "number", min: 0.1, max: 99, step: 0.1, value, inputmode: "decimal" });
  const form = el("form", { class: "inline" }, el("label", { for: "prevalence", text: t("card.prevalence-input") }), input, el("button", { type: "submit", class: "small" }, t("card.prevalence-set")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onPrevalence(input.value === "" ? null : Number(input.value) / 100);
  });
  return form;
}

const list = (texts) => el("ul", {}, texts.map((text) => el("li", { text })));
const data = (one) => t(one.doi ? "card.data-doi" : "card.data", one);

/** Fill the dialog; `onPrevalence(share)` is given to admins. */
export function fillCard(dialog, card, site, onPrevalence) {
  dialog.querySelector("h2").textContent = t("card.title-model", { name: card.name, version: card.version });
  dialog.querySelector(".dialog-body").replaceChildren(
    el("p", { class: "card-disclaimer", text: card.disclaimer }),
    el("p", { text: card.description }),
    el("p", {}, el("a", { href: PAGE, target: "_blank", rel: "noopener", text: t("card.whole") })),
    el("h3", { text: t("card.limits") }),
    list(card.limits_of_use),
    el("h3", { text: t("card.at-site") }),
    prevalence(site, onPrevalence),
    ...operatingPoints(card),
    ...unsure(card),
    el("h3", { text: t("card.performance") }),
    ...card.scores.flatMap(scores),
    el("p", { class: "faint", text: t("card.scores-meaning") }),
    ...(card.strata ?? []).flatMap(strata),
    el("h3", { text: t("card.training-data") }),
    list(card.training_data.map(data)),
    el("p", { class: "faint fingerprint", text: card.sha256 ? t("card.sha256", { sha256: card.sha256 }) : "" }),
  );
}
