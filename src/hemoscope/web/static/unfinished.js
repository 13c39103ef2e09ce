// What stands in the place of the findings while a study is read, and if it could not be read.

import { el } from "./element.js";
import { counted } from "./format.js";
import { stateWord } from "./labels.js";
import { failureOf, problemBox, refusals } from "./site.js";

const MOST_REFUSALS = 20;

export function progressOf(entry) {
  const known = entry.stage_total > 0;
  const words = known ? `${stateWord(entry.state)}: ${entry.stage_done} of ${entry.stage_total}` : stateWord(entry.state);
  const bar = el("progress", { "aria-label": words, ...(known ? { max: entry.stage_total, value: entry.stage_done } : {}) });
  const hint = entry.has_pixels ? "The slices can be viewed already." : "The slices appear as soon as they are read.";
  return el("section", { class: "waiting" }, el("h2", { text: words }), bar, el("p", { class: "faint", text: hint }));
}

function refusalList(rejected) {
  const reasons = refusals(rejected);
  if (reasons.length < 2) return null;
  const items = reasons.slice(0, MOST_REFUSALS).map(([message, count]) => el("li", { text: `${counted(count, "file")}: ${message}` }));
  return el("details", { class: "skipped" }, el("summary", { text: `${counted(rejected.length, "file")} refused` }), el("ul", {}, items));
}

export function failureNote(entry) {
  const code = entry.error_code && el("p", { class: "faint", text: `Code: ${entry.error_code}` });
  return el("section", { class: "waiting" }, el("h2", { text: "This study could not be read" }), problemBox(failureOf(entry)), code, refusalList(entry.findings?.rejected ?? []));
}
