// The model card: which model this is, its performance, and its limits of use.

import { el } from "./element.js";
import { probability } from "./format.js";
import { LABELS, labelName } from "./labels.js";

const number = (value) => (value === null ? "–" : value.toFixed(2));

function estimate(score) {
  if (!score) return "–";
  return score.low === null ? number(score.value) : `${number(score.value)} (${number(score.low)} to ${number(score.high)})`;
}

function table(caption, heads, rows) {
  const head = el("tr", {}, heads.map((text) => el("th", { scope: "col", text })));
  const line = ([first, ...rest]) => el("tr", {}, el("th", { scope: "row", text: first }), rest.map((text) => el("td", { text })));
  return el("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": caption }, el("table", { class: "card-table" }, el("caption", { text: caption }), el("thead", {}, head), el("tbody", {}, rows.map(line))));
}

function operatingPoints(card) {
  const rows = LABELS.map((label) => {
    const point = card.operating_points.study[label];
    const validation = card.established[label] ? "established" : "not established";
    return [labelName(label), validation, probability(point.threshold), number(point.sensitivity), number(point.specificity), point.rule];
  });
  const { urgent } = card.operating_points;
  rows.push(["Any, urgent", "", probability(urgent.threshold), number(urgent.sensitivity), number(urgent.specificity), urgent.rule]);
  return table("Thresholds for a study", ["Label", "Validation", "Threshold", "Sensitivity", "Specificity", "Rule"], rows);
}

function scores(one) {
  const rows = LABELS.map((label) => {
    const score = one.labels[label];
    return [labelName(label), score.auroc ? estimate(score.auroc) : (score.reason ?? "–"), estimate(score.average_precision), `${score.n_positive} (${score.n_positive_patients})`];
  });
  const caption = `${one.name}: ${one.n_images} images of ${one.n_patients} patients. ${one.description}`;
  return table(caption, ["Label", "AUROC (95%)", "Average precision (95%)", "Positive (patients)"], rows);
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

const list = (texts) => el("ul", {}, texts.map((text) => el("li", { text })));
const data = (one) => `${one.name} ${one.version}, ${one.license}. ${one.doi ? `DOI ${one.doi}. ` : ""}${one.attribution} Changes: ${one.changes}`;

/** Fill the dialog; `onPrevalence(share)` is given to admins. */
export function fillCard(dialog, card, site, onPrevalence) {
  dialog.querySelector("h2").textContent = `Model card: ${card.name} ${card.version}`;
  dialog.querySelector(".dialog-body").replaceChildren(
    el("p", { class: "card-disclaimer", text: card.disclaimer }),
    el("p", { text: card.description }),
    el("h3", { text: "Limits of use" }),
    list(card.limits_of_use),
    el("h3", { text: "At this site" }),
    prevalence(site, onPrevalence),
    operatingPoints(card),
    el("h3", { text: "Performance" }),
    ...card.scores.map(scores),
    el("p", { class: "faint", text: "In brackets: 95% intervals by bootstrap over patients." }),
    el("h3", { text: "Training data" }),
    list(card.training_data.map(data)),
    el("p", { class: "faint fingerprint", text: card.sha256 ? `Bundle SHA-256 ${card.sha256}` : "" }),
  );
}
