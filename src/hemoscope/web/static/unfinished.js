// What stands in the place of the findings while a study is read, and if it could not be read.

import { el } from "./element.js";
import { stateWord } from "./labels.js";
import { t } from "./messages.js";
import { failureOf, problemBox, refusals } from "./site.js";

const MOST_REFUSALS = 20;

export function progressOf(entry) {
  const known = entry.stage_total > 0;
  const words = known ? t("study.progress", { state: stateWord(entry.state), done: entry.stage_done, total: entry.stage_total }) : stateWord(entry.state);
  const bar = el("progress", { "aria-label": words, ...(known ? { max: entry.stage_total, value: entry.stage_done } : {}) });
  const hint = t(entry.has_pixels ? "study.view-already" : "study.view-soon");
  return el("section", { class: "waiting" }, el("h2", { text: words }), bar, el("p", { class: "faint", text: hint }));
}

function refusalList(rejected) {
  const reasons = refusals(rejected);
  if (reasons.length < 2) return null;
  const items = reasons.slice(0, MOST_REFUSALS).map(([message, count]) => el("li", { text: t("study.reason", { what: t("count.files", { count }), reason: message }) }));
  return el("details", { class: "skipped" }, el("summary", { text: t("study.refused", { count: rejected.length }) }), el("ul", {}, items));
}

export function failureNote(entry) {
  const code = entry.error_code && el("p", { class: "faint", text: t("study.code", { code: entry.error_code }) });
  return el("section", { class: "waiting" }, el("h2", { text: t("study.failed") }), problemBox(failureOf(entry)), code, refusalList(entry.findings?.rejected ?? []));
}
