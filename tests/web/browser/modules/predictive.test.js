import assert from "node:assert/strict";
import test from "node:test";

import { meaningOf, missedShare, positivePredictiveValue, ppvInterval, prevalenceOf, ratesOf } from "../../../../src/hemoscope/web/static/predictive.js";

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

const proportion = (hits, rows, patients) => ({ value: hits / rows, low: 0, high: 1, hits, rows, patients });
const HELD_OUT = { method: "cross_fitted", sensitivity: proportion(33, 40, 36), specificity: proportion(37, 50, 46), precision: null };

test("the rates of a point are those on held-out patients, with the patients that the card counts", () => {
  const point = { sensitivity: 0.99, specificity: 0.98, performance: HELD_OUT };
  assert.deepEqual(ratesOf(point), { sensitivity: 33 / 40, specificity: 37 / 50, counts: { positive: 36, negative: 46 }, method: "cross_fitted" });
});

test("rates in sample, as in a card of an earlier version, come without counts", () => {
  const rates = { sensitivity: 33 / 36, specificity: 37 / 46, counts: null, method: null };
  assert.deepEqual(ratesOf({ sensitivity: 33 / 36, specificity: 37 / 46 }), rates);
  assert.deepEqual(ratesOf({ sensitivity: 33 / 36, specificity: 37 / 46, performance: null }), rates);
  assert.equal(ratesOf({ sensitivity: null, specificity: null, performance: null }), null);
});

test("a site's one prevalence is that of any hemorrhage, and says nothing of the types", () => {
  assert.equal(prevalenceOf("any", 0.1), 0.1);
  assert.equal(prevalenceOf("subdural", 0.1), null);
  assert.equal(prevalenceOf("subdural", { subdural: 0.04 }), 0.04);
  assert.equal(prevalenceOf("any", null), null);
});

test("a point without rates, or a site without prevalence, has no meaning to show", () => {
  const point = { sensitivity: 33 / 36, specificity: 37 / 46 };
  assert.equal(meaningOf({ sensitivity: null, specificity: null }, 0.1), null);
  assert.equal(meaningOf(point, null), null);
  near(meaningOf(point, 0.1).flagged.of100, 34.2, 0.1);
  assert.equal(meaningOf(point, 0.1).flagged.interval, null);
  const held = meaningOf({ ...point, performance: HELD_OUT }, 0.1);
  near(held.flagged.of100, (100 * 0.0825) / (0.0825 + 0.234), 0.1);
  assert.equal(held.flagged.interval.length, 2);
});
