import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { keepPlace } from "../../../../src/hemoscope/web/static/query.js";
import { returnToPlace } from "../../../../src/hemoscope/web/static/way.js";

function focusedOf(listed, read) {
  const page = {};
  const focused = [];
  globalThis.document = { body: page, activeElement: page };
  globalThis.CSS = { escape: (text) => text };
  const links = listed.map((id) => ({ focus: () => focused.push(id), closest: () => ({ scrollIntoView: () => {} }) }));
  const find = (selector) => (selector === ".row-link" ? links[0] : links[listed.indexOf(/"(.*)"/.exec(selector)[1])]) ?? null;
  keepPlace(read);
  returnToPlace({ querySelector: find });
  return focused;
}

test("the way back leads to the study that was read, or to the first one if a filter hides it now", () => {
  assert.deepEqual(focusedOf(["a", "b"], "b"), ["b"]);
  assert.deepEqual(focusedOf(["a", "b"], "c"), ["a"]);
  assert.deepEqual(focusedOf([], "c"), []);
  assert.deepEqual(focusedOf(["a", "b"], ""), [], "the list was opened first");
});
