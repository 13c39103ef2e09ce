// What a threshold means, in sentences for a reader.

import { percent, probability } from "./format.js";
import { labelName, triageOf } from "./labels.js";
import { meaningOf, prevalenceOf } from "./predictive.js";

const whole = (share) => Math.round(share * 100);
const range = (interval) => (interval ? ` (95% interval ${whole(interval[0])} to ${whole(interval[1])})` : "");

function rates(point) {
  if (point.sensitivity === null || point.specificity === null) return "";
  return `Sensitivity ${percent(point.sensitivity)}, specificity ${percent(point.specificity)}`;
}

function basis(counts) {
  if (!counts) return "No interval: the model card does not state the number of patients.";
  return `Measured on ${counts.positive} patients with and ${counts.negative} without, on whom the threshold was also chosen: expect somewhat lower values.`;
}

function atPrevalence(meaning, present, prevalence) {
  const at = `at a prevalence of ${percent(prevalence)}`;
  const { flagged, missed } = meaning;
  if (present) return `At this threshold, of 100 flagged about ${Math.round(flagged.of100)} were right${range(flagged.interval)}, ${at}.`;
  return `At this threshold, of 100 not flagged about ${Math.round(missed.of100)} had it${range(missed.interval)}, ${at}.`;
}

/** Sentences on one finding's threshold: [what it means, how it was measured, on whom]. */
export function thresholdWords(finding, card, site) {
  const point = card.operating_points.study[finding.label];
  const prevalence = prevalenceOf(finding.label, site.prevalence);
  const meaning = meaningOf(point, finding.label, card, prevalence);
  const measured = rates(point);
  if (meaning) return [atPrevalence(meaning, finding.present, prevalence), `${measured} (${point.rule}).`, basis(meaning.counts)];
  if (!measured) return ["The model card does not state sensitivity and specificity at this threshold."];
  const missing =
    finding.label === "any"
      ? "How many flags would be right depends on how common bleeds are here: no prevalence is set for this site."
      : `How many flags would be right cannot be said: how common ${labelName(finding.label).toLowerCase()} bleeds are here is not known.`;
  return [missing, `${measured} (${point.rule}).`];
}

/** What of the head was not read, and why. */
export function unreadWords(study) {
  const reasons = study.unread?.reasons ?? [];
  return reasons.map(({ count, message }) => (count ? `${count} slices: ${message}` : message)).join("; ");
}

/** The reason for the study's urgency. */
export function urgencyWords(study, card) {
  const any = study.findings.find((finding) => finding.label === "any");
  const urgent = card.operating_points.urgent.threshold;
  const triage = triageOf(study);
  if (triage === "immediate") return `Any hemorrhage ${probability(any.probability)} is at or above the urgent threshold ${probability(urgent)}.`;
  if (triage === "prompt") return `A finding reached its threshold; any hemorrhage is below the urgent one (${probability(urgent)}).`;
  if (triage === "unsure") return "The model is unsure about this study. Read it before routine ones.";
  if (study.state === "incomplete") return `Not the whole head was read (${unreadWords(study)}). Nothing reached its threshold in what was read.`;
  return "No established finding reached its threshold. This does not rule out hemorrhage.";
}
