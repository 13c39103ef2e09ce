// What a threshold means at a site: predictive values from sensitivity, specificity and prevalence, by Bayes' rule.
//
//   PPV = sens * prev / (sens * prev + (1 - spec) * (1 - prev))        "of those flagged, how many were right"
//   missed = (1 - sens) * prev / ((1 - sens) * prev + spec * (1 - prev))   "of those not flagged, how many had it"
//
// Intervals (95%): Mercaldo, Lau and Zhou, Statistics in Medicine 2007;26:2170-2183, on the logit scale, for a stated
// prevalence; their adjusted estimates (Agresti and Coull's pseudo-counts) if a rate is exactly 0 or 1. The
// prevalence is taken as known. They need the numbers of patients; without those there is no interval.

const Z = 1.959964;

/** The share of positives among those flagged. */
export function positivePredictiveValue(sensitivity, specificity, prevalence) {
  const right = sensitivity * prevalence;
  const wrong = (1 - specificity) * (1 - prevalence);
  return right + wrong > 0 ? right / (right + wrong) : null;
}

/** The share of positives among those not flagged. */
export function missedShare(sensitivity, specificity, prevalence) {
  return positivePredictiveValue(1 - sensitivity, 1 - specificity, prevalence);
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** Rates away from 0 and 1, with the counts that go with them. */
function adjusted(rate, count) {
  if (rate > 0 && rate < 1) return { rate, count };
  return { rate: (rate * count + (Z * Z) / 2) / (count + Z * Z), count: count + Z * Z };
}

/** The 95% interval [low, high] of the PPV, from the numbers of positive and negative patients behind the rates. */
export function ppvInterval(sensitivity, specificity, prevalence, counts) {
  if (!counts) return null;
  const a = adjusted(sensitivity, counts.positive);
  const b = adjusted(specificity, counts.negative);
  const middle = Math.log((a.rate * prevalence) / ((1 - b.rate) * (1 - prevalence)));
  const variance = (1 - a.rate) / (a.rate * a.count) + b.rate / ((1 - b.rate) * b.count);
  const half = Z * Math.sqrt(variance);
  return [sigmoid(middle - half), sigmoid(middle + half)];
}

/** The 95% interval [low, high] of the missed share: it is the PPV of being not flagged. */
export function missedInterval(sensitivity, specificity, prevalence, counts) {
  return ppvInterval(1 - sensitivity, 1 - specificity, prevalence, counts);
}

/**
 * What a card states of an operating point: {sensitivity, specificity, counts, method}, or null if nothing.
 * `counts` are the patients behind the rates, {positive, negative}. Rates in sample (`method` null), as in cards of
 * earlier versions, come without counts.
 */
export function ratesOf(point) {
  const { performance } = point;
  if (performance?.sensitivity && performance.specificity) {
    const { sensitivity, specificity, method } = performance;
    const counts = { positive: sensitivity.patients, negative: specificity.patients };
    return { sensitivity: sensitivity.value, specificity: specificity.value, counts, method };
  }
  const { sensitivity, specificity } = point;
  if (sensitivity === null || specificity === null) return null;
  return { sensitivity, specificity, counts: null, method: null };
}

/** The site's prevalence of a label: a number is that of any hemorrhage alone; a table may name each label. */
export function prevalenceOf(label, prevalence) {
  const value = typeof prevalence === "number" ? (label === "any" ? prevalence : null) : prevalence?.[label];
  return typeof value === "number" && value > 0 && value < 1 ? value : null;
}

/** What is known of a threshold at a prevalence: {flagged, missed, counts} each with `of100` and `interval`, or null. */
export function meaningOf(point, prevalence) {
  const rates = ratesOf(point);
  if (rates === null || prevalence === null) return null;
  const { sensitivity, specificity, counts } = rates;
  const share = (value, interval) => ({ of100: value === null ? null : value * 100, interval });
  return {
    flagged: share(
      positivePredictiveValue(sensitivity, specificity, prevalence),
      ppvInterval(sensitivity, specificity, prevalence, counts),
    ),
    missed: share(
      missedShare(sensitivity, specificity, prevalence),
      missedInterval(sensitivity, specificity, prevalence, counts),
    ),
    counts,
  };
}
