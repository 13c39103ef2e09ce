// The findings beside the slices: urgency, six labels each with its probability, threshold and key slices, quality notes.

import { el, icon } from "./element.js";
import { FeedbackControls, VERDICTS } from "./feedback.js";
import { counted, probability } from "./format.js";
import { labelName, triageOf, urgencyWord } from "./labels.js";
import { thresholdWords, unreadWords, urgencyWords } from "./meaning.js";
import { plainNote } from "./quality.js";

function status(finding) {
  if (!finding.established) {
    return el("span", { class: finding.present ? "status status-doubted reached" : "status status-doubted", text: finding.present ? "Not established, suspected" : "Not established" });
  }
  return el("span", { class: finding.present ? "status status-present" : "status status-absent", text: finding.present ? "Suspected" : "Below threshold" });
}

/** A bar from 0 to 1 with a tick at the threshold; hidden from screen readers, which read the numbers. */
function meter(finding) {
  const fill = el("span", { class: "meter-fill" });
  fill.style.inlineSize = `${finding.probability * 100}%`;
  const tick = el("span", { class: "meter-tick" });
  tick.style.insetInlineStart = `${finding.threshold * 100}%`;
  return el("span", { class: "meter", "aria-hidden": "true" }, fill, tick);
}

function keySlices(finding, context) {
  const indices = context.geometry.key_slices[finding.label] ?? [];
  if (indices.length === 0) return null;
  const button = (index) =>
    el("button", { type: "button", class: "small key-slice", dataset: { slice: index }, "aria-label": `Key slice ${index + 1} of ${labelName(finding.label)}`, onclick: () => context.onSlice(index, finding.label) }, String(index + 1));
  return el("div", { class: "key-slices" }, el("span", { class: "faint", text: "Key slices" }), indices.map(button));
}

function doubt(finding) {
  return finding.established
    ? null
    : el("p", { class: "doubt", text: "Not established: too few such patients in validation. Suspected only together with any hemorrhage." });
}

/** A study may be suspected by many slices of which none stands out: a reader would look for it in vain. */
function noSlice({ label, present }, { geometry: { probabilities, thresholds, labels } }) {
  const place = labels.indexOf(label);
  const most = Math.max(...(probabilities ?? []).map((values) => values[place]));
  if (!present || !(most < thresholds?.[label])) return null;
  return el("p", { class: "doubt", text: `No slice reaches ${probability(thresholds[label])}, the threshold of slices: the highest has ${probability(most)}.` });
}

function details(finding, context) {
  const [first, ...rest] = thresholdWords(finding, context.card, context.site);
  return [
    doubt(finding),
    noSlice(finding, context),
    keySlices(finding, context),
    el("p", { class: "meaning" }, el("strong", { text: `Threshold ${probability(finding.threshold)}. ` }), first),
    rest.length > 0 && el("p", { class: "faint measured", text: rest.join(" ") }),
  ].filter(Boolean);
}

function row(finding, context, given) {
  const { label } = finding;
  const body = el("div", { class: "finding-body", id: `finding-${label}`, hidden: true }, details(finding, context), new FeedbackControls(finding, context, given).node);
  const head = el(
    "button",
    { type: "button", class: "finding-head", "aria-expanded": "false", "aria-controls": body.id, onclick: () => context.onFinding(label) },
    el("span", { class: "finding-name" }, labelName(label), el("span", { class: "reader-mark" })),
    status(finding),
    el("span", { class: "finding-probability", text: probability(finding.probability) }),
    meter(finding),
  );
  const classes = ["finding", finding.present && "is-present", !finding.established && "is-doubted", ].filter(Boolean);
  const item = el("li", { class: classes.join(" "), dataset: { label } }, el("h3", {}, head), body);
  markReviewed(item, given);
  return item;
}

/** Show on a finding's head what a reader said of it: agreed, disagreed, or nothing. */
export function markReviewed(item, given) {
  const said = given && VERDICTS[given.verdict];
  item.classList.toggle("is-agreed", given?.verdict === "agree");
  item.classList.toggle("is-disputed", given?.verdict === "corrected");
  item.querySelector(".reader-mark").replaceChildren(...(said ? [icon(said.icon), said.words] : []));
}

function notes(study) {
  const plain = study.quality.map(plainNote);
  if (plain.length === 0) return el("p", { class: "faint no-notes", text: "No quality notes on this series." });
  const item = ({ title, message, caution }) =>
    el("li", { class: caution ? "note note-caution" : "note" }, icon(caution ? "caution" : "note"), el("span", {}, el("strong", { text: title }), el("span", { class: "faint", text: message })));
  return el("ul", { class: "notes" }, plain.sort((a, b) => b.caution - a.caution).map(item));
}

function skipped(study) {
  const count = study.skipped_series.length;
  if (count === 0) return null;
  const item = ({ reason, instances }) => el("li", { text: `${counted(instances, "image")}: ${reason}` });
  return el("details", { class: "skipped" }, el("summary", { text: `${count} other series not read` }), el("ul", {}, study.skipped_series.map(item)));
}

const PARTIAL_HEAD = ["single_slice", "few_slices"]; // said already where the head was not read in full

/** Fill the panel of a finished study. `context` has card, site, geometry, studyId, onSlice, onFinding, onGiven, currentSlice. */
export function drawFindings(panel, study, context, feedback) {
  const triage = triageOf(study);
  const partial = study.state === "incomplete";
  const kind = partial && triage === "routine" ? "incomplete" : triage;
  const words = [urgencyWords(study, context.card)];
  if (partial && kind === triage) words.push(`Not the whole head was read (${unreadWords(study)}).`);
  const cautions = study.quality.map(plainNote).filter(({ code, caution }) => caution && !(partial && PARTIAL_HEAD.includes(code)));
  if (cautions.length > 0) words.push(`Caution: ${cautions.map(({ title }) => title).join("; ")}.`);
  panel.replaceChildren(
    el("section", { class: `verdict verdict-${kind}` }, icon(kind), el("div", {}, el("h2", { text: urgencyWord(kind) }), words.map((text) => el("p", { text })))),
    el("h2", { class: "unseen", text: "Findings" }),
    el("ol", { class: "findings" }, study.findings.map((finding) => row(finding, context, feedback.get(finding.label)))),
    el("section", { class: "quality" }, el("h2", { text: "Quality" }), notes(study), skipped(study)),
  );
}

/** Open one label's row and close the others. */
export function openFinding(panel, label) {
  for (const item of panel.querySelectorAll(".finding")) {
    const chosen = item.dataset.label === label;
    item.classList.toggle("is-chosen", chosen);
    item.querySelector(".finding-head").setAttribute("aria-expanded", chosen);
    item.querySelector(".finding-body").hidden = !chosen;
  }
}
