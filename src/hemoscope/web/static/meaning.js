// What a threshold means, in sentences for a reader.

import { percent, probability } from "./format.js";
import { triageOf } from "./labels.js";
import { t } from "./messages.js";
import { ruleWords } from "./rule_words.js";
import { meaningOf, prevalenceOf, ratesOf } from "./predictive.js";

const whole = (share) => Math.round(share * 100);
/** A number, with its 95% interval if there is one. */
const ranged = (number, interval) => (interval ? t("meaning.interval", { number, low: whole(interval[0]), high: whole(interval[1]) }) : number);

/** Both rates, with 95% intervals if the card has them, and the rule. */
function measured(rates, performance, rule) {
  const rate = (name) => ranged(percent(rates[name]), performance && [performance[name].low, performance[name].high]);
  return t("meaning.rates", { sensitivity: rate("sensitivity"), specificity: rate("specificity"), rule: ruleWords(rule) });
}

function basis({ counts, method }) {
  if (!counts) return t("meaning.in-sample");
  return t(`meaning.measured-${method}`, counts);
}

function atPrevalence({ flagged, missed }, present, prevalence) {
  const { of100, interval } = present ? flagged : missed;
  const values = { number: Math.round(of100), prevalence: percent(prevalence) };
  if (!interval) return t(present ? "meaning.flagged" : "meaning.missed", values);
  return t(present ? "meaning.flagged-interval" : "meaning.missed-interval", { ...values, low: whole(interval[0]), high: whole(interval[1]) });
}

/** The card that explains a study's findings: none if another model read it, whose thresholds and figures are not this card's. */
export const cardOf = (findings, card) => (findings.model?.sha256 === card.sha256 ? card : null);

/** Sentences on one finding's threshold: [what it means, how it was measured, on whom]. `card` is null if another model read the study. */
export function thresholdWords(finding, card, site) {
  if (!card) return [t("meaning.other-model")];
  const point = card.operating_points.study[finding.label];
  const prevalence = prevalenceOf(finding.label, site.prevalence);
  const rates = ratesOf(point);
  if (!rates) return [t("meaning.not-stated")];
  const numbers = measured(rates, rates.method && point.performance, point.rule);
  const meaning = meaningOf(point, prevalence);
  if (meaning) return [atPrevalence(meaning, finding.present, prevalence), numbers, basis(rates)];
  const missing =
    finding.label === "any" ? t("meaning.no-prevalence") : t(`meaning.no-prevalence-${finding.label}`);
  return [missing, numbers, basis(rates)];
}

/** What of the head was not read, and why. */
export function unreadWords(study) {
  const reasons = study.unread?.reasons ?? [];
  return reasons.map(({ count, message }) => (count ? t("study.reason", { what: t("count.slices", { count }), reason: message }) : message)).join("; ");
}

/** The sets of a card's rule for unsure studies that decide; undefined without a rule. */
export const unsureSets = (card) => card?.unsure?.sets.find(({ alpha }) => alpha === card.unsure.alpha);

function unsureWords(any, card) {
  const sets = unsureSets(card);
  const between = sets && any.probability >= sets.low && any.probability < sets.high;
  if (!between) return t("meaning.unsure");
  return t("meaning.unsure-range", { probability: probability(any.probability), low: probability(sets.low), high: probability(sets.high) });
}

/** The reason for the study's urgency, without thresholds if another model read it (`card` is null). */
export function urgencyWords(study, card) {
  const any = study.findings.find((finding) => finding.label === "any");
  const urgent = card?.operating_points.urgent.threshold;
  const triage = triageOf(study);
  if (!card && ["immediate", "prompt"].includes(triage)) return t("meaning.other-model");
  if (triage === "immediate") return t("meaning.immediate", { probability: probability(any.probability), threshold: probability(urgent) });
  if (triage === "prompt") return t("meaning.prompt", { threshold: probability(urgent) });
  if (triage === "unsure") return unsureWords(any, card);
  if (study.state === "incomplete") return t("meaning.incomplete", { reason: unreadWords(study) });
  return t("meaning.routine");
}
