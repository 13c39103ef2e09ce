import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { keyOf } from "../../../../src/hemoscope/web/static/keys.js";
import { addressOf, matches, nextSort, orderOf, parameters, readQuery } from "../../../../src/hemoscope/web/static/query.js";
import { ruleWords } from "../../../../src/hemoscope/web/static/rule_words.js";
import { indicesOf, rangesOf } from "../../../../src/hemoscope/web/static/slice_ranges.js";
import { nextStop, stopsOf } from "../../../../src/hemoscope/web/static/walk.js";

test("slices are written in ranges, counted from 1, and read back", () => {
  assert.equal(rangesOf([8, 2, 3, 4, 3]), "3–5, 9");
  assert.deepEqual(indicesOf("3-5, 9", 40), [2, 3, 4, 8]);
  assert.deepEqual(indicesOf("3 – 4;12", 40), [2, 3, 11]);
  assert.deepEqual(indicesOf(" ", 40), []);
  for (const wrong of ["0", "41", "5-3", "3-", "a", "1e2", "3-5-7", "-2"]) assert.equal(indicesOf(wrong, 40), null, wrong);
  for (const indices of [[0], [0, 1, 2], [0, 2, 4], [5, 6, 20, 21, 39]]) assert.deepEqual(indicesOf(rangesOf(indices), 40), indices);
});

test("rules are in words, and a maker's own rule is quoted", () => {
  assert.equal(ruleWords("youden"), "chosen for the highest sum of sensitivity and specificity");
  assert.equal(ruleWords("sensitivity >= 0.9"), "chosen for a sensitivity of at least 90%");
  assert.equal(ruleWords("precision >= 0.9, not below any"), "chosen for a precision of at least 90%, not below that of any hemorrhage");
  assert.equal(ruleWords("set by hand"), "chosen by the rule “set by hand”");
});

const key = (name, code, more = {}) => ({ key: name, code, shiftKey: false, ...more });

test("a shortcut works under layouts that have no such letter, and never twice", () => {
  const known = new Map([..."hnjk[]?1"].map((one) => [one, true]));
  assert.equal(keyOf(key("h", "KeyH"), known), "h");
  assert.equal(keyOf(key("р", "KeyH"), known), "h", "Russian");
  assert.equal(keyOf(key("η", "KeyH"), known), "h", "Greek");
  assert.equal(keyOf(key("&", "Digit1"), known), "1", "French, without Shift");
  assert.equal(keyOf(key("!", "Digit1", { shiftKey: true }), known), "!");
  assert.equal(keyOf(key("х", "BracketLeft"), known), "[");
  assert.equal(keyOf(key("d", "KeyH"), known), "d", "Dvorak has its own h");
  assert.equal(keyOf(key("ArrowUp", "ArrowUp"), known), "ArrowUp");
});

test("n walks through the key slices of what is suspected and comes back to the first", () => {
  const findings = [{ label: "any", present: true }, { label: "epidural", present: false }, { label: "subdural", present: true }];
  const stops = stopsOf(findings, { key_slices: { any: [7, 3], epidural: [1], subdural: [9] } });
  const places = [];
  let here = { label: "subdural", slice: 9 };
  for (let step = 0; step < 4; step += 1) places.push((here = nextStop(stops, here, 1)));
  assert.deepEqual(places.map(({ label, slice }) => `${label} ${slice}`), ["any 7", "any 3", "subdural 9", "any 7"]);
  assert.deepEqual(nextStop(stops, { label: "any", slice: 7 }, -1), { label: "subdural", slice: 9 });
  assert.deepEqual(nextStop(stops, { label: "subdural", slice: 2 }, 1), { label: "subdural", slice: 9 }, "first the finding that is open");
  assert.equal(nextStop(stopsOf([], { key_slices: {} }), { label: "any", slice: 0 }, 1), undefined);
  const calm = stopsOf([{ label: "any", present: false }, { label: "subdural", present: false }], { key_slices: { any: [4] } });
  assert.deepEqual(nextStop(calm, { label: "any", slice: 4 }, 1), { label: "subdural", slice: null });
});

test("a query survives in the address without what was searched for, and what is unknown is left out", () => {
  const query = readQuery("?urgency=prompt&state=done&review=none&sort=-scan");
  assert.deepEqual({ ...query, search: "" }, { search: "", urgency: "prompt", state: "done", review: "none", sort: "-scan" });
  assert.equal(addressOf({ ...query, search: "Doe" }), "?urgency=prompt&state=done&review=none&sort=-scan");
  assert.deepEqual(readQuery("?urgency=<b>&state=1&sort=__proto__"), readQuery(""));
  assert.equal(addressOf(readQuery("")), "");
  assert.equal(parameters({ search: "sdh", urgency: "", state: "queued,reading", review: "none", sort: "" }).toString(), "limit=500&search=sdh&reviewed=false&state=queued&state=reading");
  assert.ok(matches({ urgency: null, state: "queued" }, { urgency: "unknown", state: "queued,reading,scoring" }));
  assert.ok(!matches({ urgency: "prompt", state: "done" }, { urgency: "immediate", state: "" }));
});

test("a column sorts up, down, and then by urgency again", () => {
  assert.deepEqual(["", "scan", "-scan", "-waiting"].map((sort) => nextSort(sort, "scan")), ["scan", "-scan", "", "scan"]);
  const entries = [
    { study_id: "b", urgency: "routine", received_at: "2026-01-01T00:00:00Z", acquired_at: "2026-01-01T00:00:00Z", instances: 3 },
    { study_id: "a", urgency: "immediate", received_at: "2026-01-02T00:00:00Z", acquired_at: null, instances: 9 },
  ];
  const sorted = (sort) => [...entries].sort(orderOf({ sort })).map((entry) => entry.study_id).join("");
  assert.deepEqual(["", "study", "-study", "scan", "-scan", "-slices", "waiting"].map(sorted), ["ab", "ab", "ba", "ab", "ba", "ab", "ba"]);
});
