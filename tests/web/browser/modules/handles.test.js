import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { movedPoints, nearestHandle } from "../../../../src/hemoscope/web/static/mark_handles.js";

const image = { rows: 100, columns: 200 };
const place = { left: 10, top: 20, width: 400, height: 200 }; // two screen pixels a pixel
const points = [{ row: 20, column: 40 }, { row: 60, column: 120 }];
const mark = (kind) => ({ kind, points: [[20, 40], [60, 120]].slice(0, kind === "probe" ? 1 : 2) });
const near = (marks, row, column, reach) => nearestHandle(marks, place, image, [10 + 2 * column, 20 + 2 * row], reach);
const at = (kind, row, column, reach = 8) => near([mark(kind)], row, column, reach)?.handle ?? null;
const moved = (kind, [row, column], [down, across]) => movedPoints(points, at(kind, row, column), { row, column }, { row: row + down, column: column + across }, image);

test("each kind of measurement can be taken hold of where its line is, and nowhere else", () => {
  for (const [row, column] of [[20, 40], [60, 120]]) assert.ok(at("length", row, column));
  assert.equal(at("length", 40, 80), null, "the middle of a length");
  for (const [row, column] of [[20, 80], [60, 80], [40, 40], [40, 120]]) assert.ok(at("ellipse", row, column) && at("rectangle", row, column));
  for (const [row, column] of [[20, 40], [20, 120], [60, 40], [60, 120]]) {
    assert.ok(at("rectangle", row, column));
    assert.equal(at("ellipse", row, column), null, "the corner of an ellipse is not on it");
  }
  assert.ok(at("probe", 20, 40));
  for (const kind of ["length", "ellipse", "rectangle", "probe"]) assert.ok(at(kind, 20, 40, Infinity));
});

test("the handle nearest to the pointer is taken, within reach", () => {
  assert.deepEqual(at("length", 22, 42).moves, { row: 0, column: 0 });
  assert.equal(at("length", 23, 43), null, "8.5 screen pixels away");
  assert.deepEqual(at("length", 41, 81, Infinity).moves, { row: 1, column: 1 });
  const [length, ellipse] = [mark("length"), mark("ellipse")];
  assert.equal(near([length, ellipse], 24, 78, 40).mark, ellipse);
  assert.equal(near([], 24, 78, 40), null);
});

test("an end of a length, a side of a region and a corner of a rectangle move alone, by as much as the pointer", () => {
  assert.deepEqual(moved("length", [61, 121], [5, -10]), [points[0], { row: 65, column: 110 }]);
  assert.deepEqual(moved("ellipse", [40, 121], [5, -10]), [points[0], { row: 60, column: 110 }]);
  assert.deepEqual(moved("rectangle", [20, 80], [5, -10]), [{ row: 25, column: 40 }, points[1]]);
  assert.deepEqual(moved("rectangle", [60, 40], [5, -10]), [{ row: 20, column: 30 }, { row: 65, column: 120 }]);
});

test("what is moved stays on the slice", () => {
  assert.deepEqual(moved("length", [60, 120], [900, 900])[1], { row: 100, column: 200 });
  assert.deepEqual(moved("length", [20, 40], [-900, -900])[0], { row: 0, column: 0 });
});
