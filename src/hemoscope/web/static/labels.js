// The six labels in their one order (hemoscope/labels.py; the tests compare), and the words for urgency and state.

import { t } from "./messages.js";

export const LABELS = Object.freeze(["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]);

export const labelName = (label) => t(`label.${label}`);
export const labelShort = (label) => t(`label-short.${label}`);

export const URGENCIES = Object.freeze(["immediate", "prompt", "unsure", "incomplete", "routine"]);

export const stateWord = (state) => t(`state.${state}`);
export const urgencyWord = (urgency) => t(`urgency.${urgency ?? "unknown"}`);

/** The triage of a study in a findings document: version 1 calls it urgency. */
export const triageOf = (study) => study.triage ?? study.urgency;

const PENDING = "pending"; // a study without a result
const RANKED = ["immediate", "prompt", "unsure", "incomplete", PENDING, "routine"];

/** The order of two texts by code unit, which is the same everywhere. */
export const byText = (a, b) => Number(a > b) - Number(a < b);

/**
 * The server's own order (store/worklist.py; the tests compare): most urgent first; within one urgency what nobody has
 * reviewed first, then the longest waiting. Nobody knows what a study shows that could not be read, or that has not been
 * read yet: the first stands with the incomplete ones, the second after them, both before routine.
 */
export function byUrgencyThenWaiting(a, b) {
  const rank = (entry) => RANKED.indexOf(entry.state === "failed" ? "incomplete" : (entry.urgency ?? PENDING));
  const reviewed = (entry) => Number(entry.reviews?.length > 0);
  return rank(a) - rank(b) || reviewed(a) - reviewed(b) || Date.parse(a.received_at) - Date.parse(b.received_at) || byText(a.study_id, b.study_id);
}

/** Suspected types in label order, without `any` if an established type is among them. */
export function suspectedTypes(entry) {
  const suspected = LABELS.filter((label) => entry.suspected.includes(label));
  const typed = suspected.some((label) => label !== "any" && !entry.not_established.includes(label));
  return typed ? suspected.filter((label) => label !== "any") : suspected;
}
