import assert from "node:assert/strict";
import test from "node:test";

import { contour } from "../../../../src/hemoscope/web/static/contour.js";

/** The area that the lines enclose: all have the warm side at the same hand, so their sum is that of polygons. */
const areaOf = (lines) => Math.abs(lines.reduce((sum, [fromX, fromY, toX, toY]) => sum + fromX * toY - toX * fromY, 0) / 2);
const ends = (lines) => lines.flatMap(([fromX, fromY, toX, toY]) => [`${fromX},${fromY}`, `${toX},${toY}`]).sort();

/** Whether as many lines begin as end at every point. */
function isClosed(lines) {
  const count = new Map();
  for (const end of ends(lines)) count.set(end, (count.get(end) ?? 0) + 1);
  return lines.length > 0 && [...count.values()].every((times) => times % 2 === 0);
}

test("one warm cell is a diamond about its middle, as wide as the threshold says", () => {
  const bytes = new Uint8Array(25);
  bytes[12] = 200;
  const lines = contour(bytes, 5, 5, 100);
  assert.equal(lines.length, 4);
  assert.ok(isClosed(lines));
  assert.equal(areaOf(lines), 0.5, "half a cell to each side of (2.5, 2.5)");
  assert.deepEqual([Math.min(...lines.flat()), Math.max(...lines.flat())], [2, 3]);
  assert.equal(areaOf(contour(bytes, 5, 5, 150)), 0.125, "a quarter of a cell at a higher threshold");
});

test("a disc is enclosed by its area", () => {
  const side = 64;
  const bytes = Uint8Array.from({ length: side * side }, (_, place) => {
    const away = Math.hypot(Math.floor(place / side) - 30, (place % side) - 33);
    return Math.max(250 - away * 10, 0);
  });
  const lines = contour(bytes, side, side, 100); // at a radius of 15 cells
  assert.ok(isClosed(lines));
  assert.ok(Math.abs(areaOf(lines) - Math.PI * 15 ** 2) < 8, String(areaOf(lines)));
  for (const [x, y] of lines) assert.ok(Math.abs(Math.hypot(x - 33.5, y - 30.5) - 15) < 0.15);
});

test("a map that is warm to its border is closed there, and a cold one has no contour", () => {
  const whole = contour(new Uint8Array(12).fill(255), 3, 4, 1);
  assert.ok(isClosed(whole));
  assert.ok(areaOf(whole) > 12);
  assert.deepEqual(contour(new Uint8Array(12).fill(9), 3, 4, 10), []);
});

test("cells that touch at a corner are joined only if the middle is warm", () => {
  const square = (other) => Uint8Array.of(200, other, other, 200);
  for (const [other, mean] of [[0, 100], [99, 149]]) {
    for (const bytes of [square(other), Uint8Array.of(other, 200, 200, other)]) {
      assert.ok(isClosed(contour(bytes, 2, 2, 120)), `mean ${mean}`);
    }
  }
  assert.ok(areaOf(contour(square(99), 2, 2, 120)) > areaOf(contour(square(0), 2, 2, 120)) * 1.2);
});
