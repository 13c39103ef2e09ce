import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { fetchBetween } from "../../../../src/hemoscope/web/static/feedback.js";
import { verdictKeys } from "../../../../src/hemoscope/web/static/findings.js";
import { openingSlice } from "../../../../src/hemoscope/web/static/walk.js";
import { differInMarksAlone } from "../../../../src/hemoscope/web/static/readers.js";
import { deliveryWords } from "../../../../src/hemoscope/web/static/sent.js";

test("what was fetched while an answer was sent is fetched again, after the answer", async () => {
  const control = { sends: 0, settled: Promise.resolve() };
  const answers = ["before the answer", "after it"];
  const found = await fetchBetween([control], () => {
    if (answers.length === 2) control.sends += 1;
    return Promise.resolve(answers.shift());
  });
  assert.equal(found, "after it");
});

test("a key that is held down answers once", () => {
  const given = [];
  globalThis.document = { activeElement: null };
  const panel = { querySelector: () => ({ dataset: { label: "any" } }) };
  for (const { act } of verdictKeys(panel, (...one) => given.push(one))) for (const repeat of [false, true, true]) act({ repeat });
  assert.deepEqual(given, [["any", "agree"], ["any", "corrected"]]);
});

test("a study opens on no slice that does not show what is suspected", () => {
  const study = (present, value) => ({
    findings: { studies: [{ findings: [{ label: "any", present, established: true }] }] },
    geometry: { labels: ["any"], thresholds: { any: 0.2 }, key_slices: { any: [1, 0] }, probabilities: [[0.01], [value]] },
  });
  assert.equal(openingSlice(study(true, 0.5)), 1);
  assert.equal(openingSlice(study(true, 0.1)), undefined);
  assert.equal(openingSlice(study(false, 0.1)), 1);
});

test("verdicts on labels are what readers do: nothing else is fetched for them", () => {
  const known = { version: 1, state: "done", feedback: 0, verdicts: {} };
  assert.ok(differInMarksAlone(known, { ...known, version: 2, feedback: 1, verdicts: { any: "agree" } }));
  assert.ok(!differInMarksAlone(known, { ...known, version: 2, state: "failed", verdicts: { any: "agree" } }));
});

test("times are written in the language of the page", () => {
  const at = new Date(2026, 2, 1, 15, 32).toISOString();
  const words = (lang) => {
    globalThis.document = { documentElement: { lang } };
    return deliveryWords({ destination: "archive", state: "delivered", sent_at: at, error: "" });
  };
  assert.match(words("de"), /15:32/);
  assert.match(words("en"), /03:32/);
});
