// The findings beside the slices: urgency, six labels each with its probability, threshold and key slices, quality notes.

import { el, icon } from "./element.js";
import { FeedbackControls, fetchBetween, VERDICTS } from "./feedback.js";
import { probability } from "./format.js";
import { labelName, triageOf, urgencyWord } from "./labels.js";
import { thresholdWords, unreadWords, urgencyWords } from "./meaning.js";
import { t } from "./messages.js";
import { plainNote } from "./quality.js";
import { highestSlice } from "./walk.js";

function status(finding) {
  if (!finding.established) {
    return el("span", { class: finding.present ? "status status-doubted reached" : "status status-doubted", text: t(finding.present ? "finding.not-established-suspected" : "finding.not-established") });
  }
  if (isWeak(finding)) return el("span", { class: "status status-weak", text: t("finding.weak"), title: t("finding.weak-why") });
  return el("span", { class: finding.present ? "status status-present" : "status status-absent", text: t(finding.present ? "finding.suspected" : "finding.below") });
}

/** Suspected although by its probability it is more likely absent: thresholds are chosen to miss little. */
const isWeak = ({ present, probability: value }) => present && value < 0.5;

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
    el("button", { class: "small key-slice", dataset: { slice: index }, "aria-label": t("finding.key-slice", { number: index + 1, label: labelName(finding.label) }), onclick: () => context.onSlice(index, finding.label) }, String(index + 1));
  return el("div", { class: "key-slices" }, el("span", { class: "faint", text: t("finding.key-slices") }), indices.map(button));
}

function doubt(finding) {
  return finding.established
    ? null
    : el("p", { class: "doubt", text: t("finding.why-not-established") });
}

/** How the study's number relates to those of the slices: where none stands out, a reader would look in vain. */
function slicesWords({ label, present, probability: value }, geometry) {
  const highest = highestSlice(geometry, label);
  if (!highest) return null;
  const threshold = geometry.thresholds[label];
  const values = { study: probability(value), highest: probability(highest.value), number: highest.index + 1, threshold: probability(threshold) };
  if (present && highest.value < threshold) return el("p", { class: "doubt", text: t("finding.no-slice", values) });
  return el("p", { class: "faint relation", text: t("finding.relation", values) });
}

function details(finding, context) {
  const [first, ...rest] = thresholdWords(finding, context.card, context.site);
  return [
    doubt(finding),
    isWeak(finding) && el("p", { class: "doubt", text: t("finding.weak-why") }),
    keySlices(finding, context),
    slicesWords(finding, context.geometry),
    el("p", { class: "meaning" }, el("strong", { text: t("finding.threshold", { threshold: probability(finding.threshold) }) }), ` ${first}`),
    rest.length > 0 && el("p", { class: "faint measured", text: rest.join(" ") }),
  ].filter(Boolean);
}

function row(finding, context, given, controls) {
  const { label } = finding;
  const body = el("div", { class: "finding-body", id: `finding-${label}`, hidden: true }, details(finding, context), controls.node);
  const head = el(
    "button",
    { type: "button", class: "finding-head", "aria-expanded": "false", "aria-controls": body.id, onclick: () => context.onFinding(label) },
    el("span", { class: "finding-name" }, labelName(label), el("span", { class: "reader-mark" })),
    status(finding),
    el("span", { class: "finding-probability" }, probability(finding.probability), " ", el("span", { class: "finding-threshold", text: t(finding.probability >= finding.threshold ? "finding.reached" : "finding.not-reached", { threshold: probability(finding.threshold) }) })),
    meter(finding),
  );
  const classes = ["finding", finding.present && "is-present", isWeak(finding) && "is-weak", !finding.established && "is-doubted", ].filter(Boolean);
  const item = el("li", { class: classes.join(" "), dataset: { label } }, el("h3", {}, head), body);
  markReviewed(item, given);
  return item;
}

/** Show on a finding's head what a reader said of it: agreed, disagreed, or nothing. */
export function markReviewed(item, given) {
  const said = given && VERDICTS[given.verdict];
  item.classList.toggle("is-agreed", given?.verdict === "agree");
  item.classList.toggle("is-disputed", given?.verdict === "corrected");
  item.querySelector(".reader-mark").replaceChildren(...(said ? [icon(said.icon), t(said.words)] : []));
}

function notes(study) {
  const plain = study.quality.map(plainNote);
  if (plain.length === 0) return el("p", { class: "faint no-notes", text: t("finding.no-notes") });
  const item = ({ title, message, caution }) =>
    el("li", { class: caution ? "note note-caution" : "note" }, icon(caution ? "caution" : "note"), el("span", {}, el("strong", { text: title }), el("span", { class: "faint", lang: "en", text: message })));
  return el("ul", { class: "notes" }, plain.sort((a, b) => b.caution - a.caution).map(item));
}

function skipped(study) {
  const count = study.skipped_series.length;
  if (count === 0) return null;
  const item = ({ reason, instances }) => el("li", { text: t("study.reason", { what: t("count.images", { count: instances }), reason }) });
  return el("details", { class: "skipped" }, el("summary", { text: t("finding.skipped", { count }) }), el("ul", {}, study.skipped_series.map(item)));
}

const PARTIAL_HEAD = ["single_slice", "few_slices"]; // said already where the head was not read in full

/**
 * Fill the panel of a finished study. `context` has card (null if another model read the study), site, geometry, studyId, onSlice, onFinding, onGiven, onFailed, currentSlice.
 * Returns {follow(fetch), give(label, verdict), check()}: fetch and show what readers said since, agree or disagree with a
 * finding, and say so if the answers contradict each other.
 */
export function drawFindings(panel, study, context, feedback) {
  const triage = triageOf(study);
  const partial = study.state === "incomplete";
  const kind = partial && triage === "routine" ? "incomplete" : triage;
  const words = [urgencyWords(study, context.card)];
  if (partial && kind === triage) words.push(t("meaning.partial", { reason: unreadWords(study) }));
  const cautions = study.quality.map(plainNote).filter(({ code, caution }) => caution && !(partial && PARTIAL_HEAD.includes(code)));
  if (cautions.length > 0) words.push(t("finding.caution", { notes: cautions.map(({ title }) => title).join("; ") }));
  const controls = new Map(study.findings.map((finding) => [finding.label, new FeedbackControls(finding, context, feedback.get(finding.label))]));
  const rows = new Map(study.findings.map((finding) => [finding.label, row(finding, context, feedback.get(finding.label), controls.get(finding.label))]));
  if (triage === "unsure" && study.findings.some(({ present }) => present)) words.push(t("meaning.unsure-suspected"));
  const contradiction = el("p", { class: "contradiction", role: "alert", hidden: true });
  const check = (given) => {
    contradiction.textContent = contradictionWords(given);
    contradiction.hidden = !contradiction.textContent;
  };
  check(feedback);
  panel.replaceChildren(
    el("section", { class: `verdict verdict-${kind}` }, icon(kind), el("div", {}, el("h2", { text: urgencyWord(kind) }), words.map((text) => el("p", { text })))),
    el("h2", { class: "unseen", text: t("study.findings") }),
    contradiction,
    el("ol", { class: "findings" }, [...rows.values()]),
    el("section", { class: "quality" }, el("h2", { text: t("finding.quality") }), notes(study), skipped(study)),
  );
  const take = (newer) => {
    check(newer);
    for (const [label, one] of controls) if (one.take(newer.get(label))) markReviewed(rows.get(label), newer.get(label));
  };
  let asked = 0;
  const follow = async (fetch) => {
    const mine = (asked += 1);
    const newer = await fetchBetween([...controls.values()], fetch);
    if (mine === asked) take(newer); // a slow answer must not undo a later one
  };
  const standing = () => new Map([...controls].filter(([, { given }]) => given).map(([label, { given }]) => [label, given]));
  return { follow, give: (label, verdict) => controls.get(label)?.give(verdict), check: () => check(standing()) };
}

/** What readers said that cannot all be so, in words; "" if it can. A type is a hemorrhage. */
export function contradictionWords(given) {
  if (given.get("any")?.present !== false) return "";
  const types = [...given].filter(([label, { present }]) => label !== "any" && present).map(([label]) => labelName(label));
  return types.length > 0 ? t("feedback.contradiction", { types: types.join(", ") }) : "";
}

/** Open one label's row and close the others. The focus does not stay in another row, whose finding `a` and `d` would answer. */
export function openFinding(panel, label) {
  const focused = document.activeElement?.closest(".finding");
  for (const item of panel.querySelectorAll(".finding")) {
    const chosen = item.dataset.label === label;
    const head = item.querySelector(".finding-head");
    item.classList.toggle("is-chosen", chosen);
    head.setAttribute("aria-expanded", chosen);
    item.querySelector(".finding-body").hidden = !chosen;
    if (chosen && focused && focused !== item) head.focus({ preventScroll: true });
  }
}

/** The keys that agree and disagree with the finding that has the focus, else with the chosen one. */
export function verdictKeys(panel, give) {
  const meant = () => (document.activeElement?.closest(".finding") ?? panel.querySelector(".finding.is-chosen"))?.dataset.label;
  return [
    { keys: ["a"], shown: ["a"], does: t("keys.agree"), act: (event) => event.repeat || give(meant(), "agree") },
    { keys: ["d"], shown: ["d"], does: t("keys.disagree"), act: (event) => event.repeat || give(meant(), "corrected") },
  ];
}
