import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { edgeLetters, geometryCaution, scaleBar, shownGeometry } from "../../../../src/hemoscope/web/static/geometry.js";

const tilted = (degrees) => {
  const angle = (degrees * Math.PI) / 180;
  return [1, 0, 0, 0, Math.cos(angle), -Math.sin(angle)];
};
const axial = [1, 0, 0, 0, 1, 0];
const geometry = { spacing_mm: [5, 0.5, 0.45], orientation: axial, assumed: false };

test("an axial slice has the patient's left on the right of the picture and the front above", () => {
  assert.deepEqual(edgeLetters(axial), { left: "R", right: "L", top: "A", bottom: "P" });
});

test("a slice stored mirrored, prone or upside down is marked so", () => {
  assert.deepEqual(edgeLetters([-1, 0, 0, 0, 1, 0]), { left: "L", right: "R", top: "A", bottom: "P" });
  assert.deepEqual(edgeLetters([1, 0, 0, 0, -1, 0]), { left: "R", right: "L", top: "P", bottom: "A" });
  assert.deepEqual(edgeLetters([-1, 0, 0, 0, -1, 0]), { left: "L", right: "R", top: "P", bottom: "A" });
});

test("a rotated slice has its own axes on its edges", () => {
  assert.deepEqual(edgeLetters([0, 1, 0, -1, 0, 0]), { left: "A", right: "P", top: "L", bottom: "R" });
});

test("a usual gantry tilt keeps plain marks, a steep one names the head and the feet too", () => {
  assert.deepEqual(edgeLetters(tilted(20)), { left: "R", right: "L", top: "A", bottom: "P" });
  assert.deepEqual(edgeLetters(tilted(30)), { left: "R", right: "L", top: "AH", bottom: "PF" });
});

test("coronal and sagittal slices show head and feet", () => {
  assert.deepEqual(edgeLetters([1, 0, 0, 0, 0, -1]), { left: "R", right: "L", top: "H", bottom: "F" });
  assert.deepEqual(edgeLetters([0, 1, 0, 0, 0, -1]), { left: "A", right: "P", top: "H", bottom: "F" });
});

test("what is no orientation gives no marks", () => {
  for (const wrong of [null, [], [1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 0, 0, NaN, 0]]) {
    assert.equal(edgeLetters(wrong), null);
  }
});

test("assumed geometry shows neither sides nor millimetres, and says so", () => {
  const shown = shownGeometry({ ...geometry, assumed: true });
  assert.equal(shown.marks, null);
  assert.equal(shown.millimetres, false);
  assert.match(geometryCaution({ ...geometry, assumed: true }), /assumed.*no mm scale/i);
});

test("unknown orientation and unknown spacing are stated separately", () => {
  assert.match(geometryCaution({ ...geometry, orientation: null }), /^Orientation unknown, sides not marked$/);
  assert.match(geometryCaution({ ...geometry, spacing_mm: [null, null, null] }), /^Pixel spacing unknown, no mm scale$/);
  assert.equal(geometryCaution(geometry), "");
});

test("pixels that are not square keep their shape", () => {
  const { rowSize, columnSize } = shownGeometry(geometry);
  assert.deepEqual([rowSize, columnSize], [0.5, 0.45]);
});

test("the scale is the longest round length that fits", () => {
  assert.deepEqual(scaleBar(2, 150), { mm: 50, pixels: 100 });
  assert.deepEqual(scaleBar(10, 150), { mm: 10, pixels: 100 });
  assert.equal(scaleBar(1000, 150).mm, 1);
});
