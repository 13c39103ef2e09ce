import assert from "node:assert/strict";
import test from "node:test";

import { announce } from "../../../../src/hemoscope/web/static/announce.js";

test("a change without words does not cancel the announcement of another study", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const place = { textContent: "" };
  globalThis.document = { querySelector: () => place };
  announce("Study a: Immediate.");
  announce("");
  context.mock.timers.tick(500);
  assert.equal(place.textContent, "Study a: Immediate.");
});
