import assert from "node:assert/strict";
import test from "node:test";

import { countsBehind, meaningOf, missedShare, positivePredictiveValue, ppvInterval, prevalenceOf } from "../../../../src/hemoscope/web/static/predictive.js";

const near = (value, expected, within = 1e-6) => assert.ok(Math.abs(value - expected) < within, `${value} is not ${expected}`);

test("the predictive value is Bayes' rule, as counted in a thousand patients", () => {
  // Of 1000 with prevalence 10 %: 100 ill, 90 found; 900 well, 180 flagged.
  near(positivePredictiveValue(0.9, 0.8, 0.1), 90 / 270);
  near(missedShare(0.9, 0.8, 0.1), 10 / 730);
});

test("a perfect test is always right, a coin is right as often as the illness is there", () => {
  near(positivePredictiveValue(1, 1, 0.01), 1);
  near(positivePredictiveValue(0.5, 0.5, 0.13), 0.13);
});

test("nothing flagged has no predictive value", () => {
  assert.equal(positivePredictiveValue(0, 1, 0.1), null);
});

test("the interval is Mercaldo's on the logit scale", () => {
  // By hand: sens 33/36, spec 37/46, prevalence 0.1: logit(PPV) = ln(0.0916667 / 0.1760870) = -0.652796;
  // variance = (3/36) / (33/36 * 36) + (37/46) / (9/46 * 46) = 0.0025253 + 0.0893720 = 0.0918972; half = 0.594158.
  const [low, high] = ppvInterval(33 / 36, 37 / 46, 0.1, { positive: 36, negative: 46 });
  near(low, 1 / (1 + Math.exp(0.652796 + 0.594158)), 1e-4);
  near(high, 1 / (1 + Math.exp(0.652796 - 0.594158)), 1e-4);
});

test("the interval holds the estimate, narrows with more patients, and is finite at 0 and 1", () => {
  const [low, high] = ppvInterval(0.9, 0.8, 0.1, { positive: 40, negative: 60 });
  assert.ok(low < 1 / 3 && 1 / 3 < high);
  const [lower, higher] = ppvInterval(0.9, 0.8, 0.1, { positive: 4000, negative: 6000 });
  assert.ok(higher - lower < (high - low) / 5);
  const [atLow, atHigh] = ppvInterval(1, 1, 0.1, { positive: 10, negative: 20 });
  assert.ok(atLow > 0 && atHigh < 1);
});

test("without the patients behind the rates there is no interval", () => {
  assert.equal(ppvInterval(0.9, 0.8, 0.1, null), null);
});

const cardWith = (positive, patients) => ({
  scores: [
    { level: "slice", n_patients: 82, labels: { any: { n_positive_patients: 36 } } },
    { level: "patient", n_patients: patients, labels: { any: { n_positive_patients: positive } } },
  ],
});

test("the patients behind a point are those of the card's table by patient, if both rates count them", () => {
  const point = { sensitivity: 33 / 36, specificity: 37 / 46 };
  assert.deepEqual(countsBehind(point, "any", cardWith(36, 82)), { positive: 36, negative: 46 });
  assert.equal(countsBehind(point, "any", cardWith(35, 82)), null);
  assert.equal(countsBehind(point, "any", { scores: [] }), null);
});

test("a site's one prevalence is that of any hemorrhage, and says nothing of the types", () => {
  assert.equal(prevalenceOf("any", 0.1), 0.1);
  assert.equal(prevalenceOf("subdural", 0.1), null);
  assert.equal(prevalenceOf("subdural", { subdural: 0.04 }), 0.04);
  assert.equal(prevalenceOf("any", null), null);
});

test("a point without rates, or a site without prevalence, has no meaning to show", () => {
  const point = { sensitivity: 33 / 36, specificity: 37 / 46 };
  assert.equal(meaningOf({ sensitivity: null, specificity: null }, "any", cardWith(36, 82), 0.1), null);
  assert.equal(meaningOf(point, "any", cardWith(36, 82), null), null);
  near(meaningOf(point, "any", cardWith(36, 82), 0.1).flagged.of100, 34.2, 0.1);
});
