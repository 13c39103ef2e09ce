import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { keepView, keptView } from "../../../../src/hemoscope/web/static/kept_view.js";
import { drawMark } from "../../../../src/hemoscope/web/static/mark_drawing.js";
import { lengthMm, measured, measuredWords } from "../../../../src/hemoscope/web/static/measure.js";
import { greyTable, pixelTable, PRESETS, typedWindow } from "../../../../src/hemoscope/web/static/window.js";

const slice = { rows: 4, columns: 5, hounsfield: Int16Array.from({ length: 20 }, (_, place) => 10 * place) };
const shape = { rowSize: 0.5, columnSize: 2 };
const box = [{ row: 1, column: 1 }, { row: 3, column: 4 }];

test("a length is in mm, also on pixels that are not square", () => {
  assert.equal(lengthMm({ row: 0, column: 0 }, { row: 6, column: 2 }, shape), 5);
});

test("a rectangle takes the pixels whose centre it holds, from either corner", () => {
  const found = measured("rectangle", box, slice, shape);
  const { sd_hu: sd, ...exact } = found;
  assert.deepEqual(exact, { mean_hu: 95, lowest_hu: 60, highest_hu: 130, pixels: 6, area_mm2: 6 });
  assert.ok(Math.abs(sd - Math.sqrt((2 * (35 ** 2 + 25 ** 2 + 15 ** 2)) / 6)) < 1e-9);
  assert.deepEqual(measured("rectangle", [...box].reverse(), slice, shape), found);
});

test("a region without a pixel's centre measures nothing, and one beyond the edge what is inside", () => {
  assert.equal(measured("ellipse", [{ row: 1.1, column: 1.1 }, { row: 1.3, column: 1.3 }], slice, shape), null);
  assert.equal(measured("rectangle", [{ row: 0, column: 0 }, { row: 4, column: 5 }], slice, shape).pixels, 20);
});

test("a point has the HU of its pixel, at the last edge too", () => {
  assert.equal(measured("probe", [{ row: 1.9, column: 2.2 }], slice, shape).lowest_hu, 70);
  assert.equal(measured("probe", [{ row: 4, column: 5 }], slice, shape).lowest_hu, 190);
  assert.deepEqual(measuredWords("probe", { lowest_hu: 190 }), ["190 HU"]);
});

test("inverted grey is the opposite of grey, and still opaque", () => {
  const [plain, inverted] = [pixelTable(40, 80), pixelTable(40, 80, true)];
  for (const hu of [-1000, 0, 40, 63, 3000]) assert.equal((plain[hu + 32768] & 255) + (inverted[hu + 32768] & 255), 255);
  assert.equal(inverted[0] >>> 24, 255);
  assert.equal(plain[32768 + 40] & 255, greyTable(40, 80)[32768 + 40]);
});

test("a typed window is within the limits or none", () => {
  assert.deepEqual(typedWindow("35", "35"), { center: 35, width: 35 });
  for (const [level, width] of [["", "80"], ["40", ""], ["40", "1"], ["40", "9999"], ["x", "80"], ["5000", "80"]]) assert.equal(typedWindow(level, width), null);
  assert.equal(new Set(PRESETS.map(({ key }) => key)).size, PRESETS.length);
});

test("window and zoom stay in this tab, and what is damaged is left out", () => {
  const view = { zoom: 2, panX: 3, panY: -4 };
  globalThis.document = { querySelector: () => ({}) };
  keepView({ studyId: "a", window: { center: 35, width: 35 }, viewer: { view }, inverted: true });
  const kept = { window: { center: 35, width: 35 }, inverted: true };
  assert.deepEqual(keptView("a"), { ...kept, view, inherited: null });
  const another = { ...kept, view: { zoom: view.zoom, panX: 0, panY: 0 }, inherited: { ...kept, zoom: 2 } };
  assert.deepEqual(keptView("b"), another, "another head lies elsewhere");
  keepView({ studyId: "a", window: { center: "x" }, viewer: { view: { zoom: 0 } }, inverted: 1 });
  assert.deepEqual(keptView("b"), { window: null, view: null, inverted: false, inherited: { window: null, zoom: 1, inverted: false } });
});

/** Where the lines of a measurement's caption are written, on a stage of 400 x 300 that its slice fills. */
function captionOf(kind, points, found) {
  const written = [];
  const nothing = () => {};
  const context = { canvas: { clientWidth: 400, clientHeight: 300 }, measureText: () => ({ width: 120 }), fillText: (line, x, y) => written.push([x, y]) };
  for (const act of ["beginPath", "moveTo", "lineTo", "rect", "ellipse", "stroke", "strokeText"]) context[act] = nothing;
  drawMark(context, { left: 0, top: 0, width: 400, height: 300 }, { rows: 300, columns: 400 }, kind, points, found);
  return written;
}

test("the caption of a measurement stays on the stage, at every edge", () => {
  const region = measured("rectangle", box, slice, shape);
  for (const [row, column] of [[0, 0], [0, 399], [299, 0], [299, 399], [-40, -40], [340, 440]]) {
    const lines = captionOf("rectangle", [{ row, column }, { row, column }], region);
    assert.equal(lines.length, 2);
    for (const [x, y] of lines) assert.ok(x >= 0 && x + 120 <= 400 && y >= 0 && y + 13 <= 300, `${x}, ${y}`);
    assert.equal(lines[1][1] - lines[0][1], 16);
  }
  assert.deepEqual(captionOf("probe", [{ row: 100, column: 100 }], { lowest_hu: 5 }), [[108, 104]]);
});
