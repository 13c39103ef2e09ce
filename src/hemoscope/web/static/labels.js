// The six labels in their one order (hemoscope/labels.py; the tests compare), and the words for urgency and state.

export const LABELS = Object.freeze([
  "any",
  "epidural",
  "intraparenchymal",
  "intraventricular",
  "subarachnoid",
  "subdural",
]);

const NAMES = {
  any: ["Any hemorrhage", "Any"],
  epidural: ["Epidural", "EDH"],
  intraparenchymal: ["Intraparenchymal", "IPH"],
  intraventricular: ["Intraventricular", "IVH"],
  subarachnoid: ["Subarachnoid", "SAH"],
  subdural: ["Subdural", "SDH"],
};

export const labelName = (label) => NAMES[label][0];
export const labelShort = (label) => NAMES[label][1];

export const URGENCIES = Object.freeze(["immediate", "prompt", "unsure", "incomplete", "routine"]);
export const STATES = Object.freeze(["queued", "reading", "scoring", "done", "failed"]);

const STATE_WORDS = {
  queued: "Waiting for a worker",
  reading: "Reading files",
  scoring: "Scoring slices",
  done: "Done",
  failed: "Failed",
};

export const stateWord = (state) => STATE_WORDS[state] ?? state;
export const urgencyWord = (urgency) =>
  urgency ? urgency.charAt(0).toUpperCase() + urgency.slice(1) : "Pending";

/** The triage of a study in a findings document: version 1 calls it urgency. */
export const triageOf = (study) => study.triage ?? study.urgency;

/**
 * Most urgent first, pending last; within one urgency the longest waiting first.
 * Nobody knows what a study shows that could not be read: it stands with the incomplete ones, before routine.
 */
export function byUrgencyThenWaiting(a, b) {
  const urgency = (entry) => (entry.state === "failed" ? "incomplete" : entry.urgency);
  const rank = (entry) => (URGENCIES.includes(urgency(entry)) ? URGENCIES.indexOf(urgency(entry)) : URGENCIES.length);
  return rank(a) - rank(b) || Date.parse(a.received_at) - Date.parse(b.received_at);
}

/** Suspected types in label order, without `any` if an established type is among them. */
export function suspectedTypes(entry) {
  const suspected = LABELS.filter((label) => entry.suspected.includes(label));
  const typed = suspected.some((label) => label !== "any" && !entry.not_established.includes(label));
  return typed ? suspected.filter((label) => label !== "any") : suspected;
}
