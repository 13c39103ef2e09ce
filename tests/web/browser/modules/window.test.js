// Run by: node --test tests/web/browser/modules/ (pytest does it: tests/web/browser/test_modules.py)

import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { draggedWindow, greyTable, paint, pixelTable, PRESETS, presetName, presetOf, roundHalfEven } from "../../../../src/hemoscope/web/static/window.js";

const grey = (table, hounsfield) => table[hounsfield + 32768];

test("halves are rounded to the even number, as NumPy does", () => {
  assert.deepEqual([0.5, 1.5, 2.5, 2.4, 2.6].map(roundHalfEven), [0, 2, 2, 2, 3]);
});

test("a window is black below, white above, and rises between", () => {
  for (const { center, width } of PRESETS) {
    const table = greyTable(center, width);
    assert.equal(grey(table, Math.floor(center - width / 2)), 0);
    assert.equal(grey(table, Math.ceil(center + width / 2)), 255);
    assert.equal(grey(table, -32768), 0);
    assert.equal(grey(table, 32767), 255);
    assert.ok(table.every((value, index) => index === 0 || value >= table[index - 1]));
  }
});

test("the tables are those of NumPy, value for value", { skip: !process.env.HEMOSCOPE_GREYS && "pytest gives the reference" }, async () => {
  const { readFile } = await import("node:fs/promises");
  const references = JSON.parse(await readFile(process.env.HEMOSCOPE_GREYS, "utf8"));
  assert.ok(references.length >= 3);
  for (const { center, width, first, greys } of references) {
    const table = greyTable(center, width);
    assert.deepEqual([...table.slice(first + 32768, first + 32768 + greys.length)], greys, `${center}/${width}`);
  }
});

test("pixels are opaque grey", () => {
  const pixels = new Uint32Array(3);
  paint(Int16Array.of(-1000, 40, 3000), pixelTable(40, 80), pixels);
  const bytes = [...new Uint8Array(pixels.buffer)];
  assert.deepEqual(bytes, [0, 0, 0, 255, 128, 128, 128, 255, 255, 255, 255, 255]);
});

test("dragging right widens, dragging down raises the level, and a window never collapses", () => {
  const start = { center: 40, width: 80 };
  assert.ok(draggedWindow(start, 100, 0).width > 80);
  assert.equal(draggedWindow(start, 100, 0).center, 40);
  assert.ok(draggedWindow(start, 0, 100).center > 40);
  assert.ok(draggedWindow(start, -10000, 0).width >= 1);
});

test("a window has its preset's name, or none", () => {
  assert.equal(presetName(presetOf({ center: 80, width: 200 })), "Subdural");
  assert.equal(presetName(presetOf({ center: 81, width: 200 })), "Custom");
});
