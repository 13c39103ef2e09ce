import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { slicePixels } from "../../../../src/hemoscope/web/static/api.js";
import { wheelSteps } from "../../../../src/hemoscope/web/static/gestures.js";
import { keepView, keptView } from "../../../../src/hemoscope/web/static/kept_view.js";

const BONE = { center: 600, width: 2800 };
const words = { textContent: "" };

function keep(changes) {
  globalThis.document = { querySelector: () => words };
  keepView({ window: { center: 40, width: 80 }, viewer: { view: { zoom: 1, panX: 0, panY: 0 } }, inverted: false, inherited: null, ...changes });
  return words.textContent;
}

test("the words about the last study name what is still on, also after the page is loaded again", () => {
  assert.equal(keep({ studyId: "a", window: BONE, viewer: { view: { zoom: 2, panX: 9, panY: 0 } } }), "");
  const next = () => {
    const { window, view, inherited } = keptView("b");
    return { studyId: "b", window, viewer: { view }, inherited };
  };
  assert.equal(next().viewer.view.panX, 0);
  const both = "Kept from the last study: zoom, window. Reset with r";
  assert.equal(keep(next()), both);
  assert.equal(keep(next()), both, "loaded again");
  assert.equal(keep({ ...next(), viewer: { view: { zoom: 2, panX: 5, panY: 5 } } }), both, "a pan is this study's own");
  assert.equal(keep({ ...next(), window: { center: 80, width: 200 } }), "Kept from the last study: zoom. Reset with r");
  assert.equal(keep({ ...next(), window: BONE }), "Kept from the last study: zoom. Reset with r", "chosen again, it is the reader's");
  assert.equal(keep({ ...next(), viewer: { view: { zoom: 1, panX: 0, panY: 0 } } }), "");
});

test("a connection lost in the middle of a slice is a problem with its remedy", async () => {
  globalThis.fetch = () => Promise.resolve({ ok: true, headers: new Headers(), arrayBuffer: () => Promise.reject(new TypeError("network error")) });
  await assert.rejects(slicePixels("a", 0), { name: "Error", code: "unreachable", detail: "The server does not answer." });
});

test("a wheel's notch is one step, and small movements of a touchpad add up", () => {
  const steps = wheelSteps();
  assert.deepEqual([120, 20, 20, 20, -120].map((deltaY) => Math.abs(steps({ deltaY, deltaMode: 0 }))), [1, 0, 0, 1, 1]);
  assert.equal(wheelSteps()({ deltaY: -3, deltaMode: 1 }), 1);
});
