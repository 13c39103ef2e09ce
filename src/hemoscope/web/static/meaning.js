// What a threshold means, in sentences for a reader.

import { counted, percent, probability } from "./format.js";
import { labelName, triageOf } from "./labels.js";
import { ruleWords } from "./rule_words.js";
import { meaningOf, prevalenceOf, ratesOf } from "./predictive.js";

const whole = (share) => Math.round(share * 100);
const range = (interval) => (interval ? ` (95% interval ${whole(interval[0])} to ${whole(interval[1])})` : "");

const METHODS = {
  cross_fitted: "each decided by thresholds fitted on the other patients",
  test_set: "the test set",
};

/** Both rates; with 95% intervals if the card has them. */
function measured(rates, performance) {
  const rate = (name) => percent(rates[name]) + range(performance && [performance[name].low, performance[name].high]);
  return `Sensitivity ${rate("sensitivity")}, specificity ${rate("specificity")}`;
}

function basis({ counts, method }) {
  if (!counts) return "Measured in sample, on the patients that the threshold was chosen on: expect lower values. No interval: the model card does not state their number.";
  return `Measured on ${counts.positive} patients with and ${counts.negative} without, ${METHODS[method]}.`;
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
  const rates = ratesOf(point);
  if (!rates) return ["The model card does not state sensitivity and specificity at this threshold."];
  const numbers = `${measured(rates, rates.method && point.performance)}. The threshold was ${ruleWords(point.rule)}.`;
  const meaning = meaningOf(point, prevalence);
  if (meaning) return [atPrevalence(meaning, finding.present, prevalence), numbers, basis(rates)];
  const missing =
    finding.label === "any"
      ? "How many flags would be right depends on how common bleeds are here: no prevalence is set for this site."
      : `How many flags would be right cannot be said: how common ${labelName(finding.label).toLowerCase()} bleeds are here is not known.`;
  return [missing, numbers, basis(rates)];
}

/** What of the head was not read, and why. */
export function unreadWords(study) {
  const reasons = study.unread?.reasons ?? [];
  return reasons.map(({ count, message }) => (count ? `${counted(count, "slice")}: ${message}` : message)).join("; ");
}

/** The sets of a card's rule for unsure studies that decide; undefined without a rule. */
export const unsureSets = (card) => card.unsure?.sets.find(({ alpha }) => alpha === card.unsure.alpha);

function unsureWords(any, card) {
  const sets = unsureSets(card);
  const advice = "Read it before routine ones.";
  const between = sets && any.probability >= sets.low && any.probability < sets.high; // not if another model read it
  if (!between) return `The model is unsure about this study. ${advice}`;
  return `The model is unsure: any hemorrhage ${probability(any.probability)} lies from ${probability(sets.low)} to ${probability(sets.high)}, where studies with and without hemorrhage overlap. ${advice}`;
}

/** The reason for the study's urgency. */
export function urgencyWords(study, card) {
  const any = study.findings.find((finding) => finding.label === "any");
  const urgent = card.operating_points.urgent.threshold;
  const triage = triageOf(study);
  if (triage === "immediate") return `Any hemorrhage ${probability(any.probability)} is at or above the urgent threshold ${probability(urgent)}.`;
  if (triage === "prompt") return `A finding reached its threshold; any hemorrhage is below the urgent one (${probability(urgent)}).`;
  if (triage === "unsure") return unsureWords(any, card);
  if (study.state === "incomplete") return `Not the whole head was read (${unreadWords(study)}). Nothing reached its threshold in what was read.`;
  return "No established finding reached its threshold. This does not rule out hemorrhage.";
}
