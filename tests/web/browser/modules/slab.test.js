import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { Blender } from "../../../../src/hemoscope/web/static/blend.js";
import { firstSlab, slabAt, slabName, stepOf, typedThickness } from "../../../../src/hemoscope/web/static/slab.js";

const positionsOf = (count, step, from = 0) => Array.from({ length: count }, (_, index) => from + index * step);
const sharesOf = (members) => Object.fromEntries(members.map(({ index, mm }) => [index, Number(mm.toFixed(4))]));

test("a slab is as many millimetres as it says, about its slice, whatever the direction of the stack", () => {
  const thin = positionsOf(100, 0.625, -30);
  const members = slabAt(thin, 0.625, 50, 5);
  assert.equal(members[0].index, 50, "the slice itself comes first");
  assert.deepEqual(sharesOf(members), { 46: 0.3125, 47: 0.625, 48: 0.625, 49: 0.625, 50: 0.625, 51: 0.625, 52: 0.625, 53: 0.625, 54: 0.3125 });
  assert.equal(slabName("average", members), "5 mm average");
  const falling = slabAt([...thin].reverse(), 0.625, 49, 5);
  assert.deepEqual(falling.map(({ index }) => 99 - index).sort(), members.map(({ index }) => index).sort());
});

test("at the end of a series and beside a gap a slab is thinner, and says so", () => {
  const end = slabAt(positionsOf(40, 1), 1, 0, 5);
  assert.deepEqual(sharesOf(end), { 0: 1, 1: 1, 2: 1 });
  assert.equal(slabName("mip", end), "3 mm MIP");
  const gap = slabAt([0, 1, 2, 6, 7, 8], 1, 2, 5);
  assert.deepEqual(sharesOf(gap), { 0: 1, 1: 1, 2: 1 }, "what lies behind the gap does not fill it");
});

test("a slice thicker than the slab stays alone", () => {
  assert.deepEqual(sharesOf(slabAt(positionsOf(10, 5), 5, 4, 3)), { 4: 3 });
});

test("thin series open as an average of 5 mm, others as they are, and none without measured positions", () => {
  const geometry = { spacing_mm: [0.625, 0.5, 0.5], positions_mm: [0, 0.625], assumed: false };
  assert.deepEqual(firstSlab(stepOf(geometry)), { mode: "average", mm: 5 });
  assert.equal(firstSlab(2).mode, "off");
  assert.equal(firstSlab(1.99).mode, "average");
  assert.equal(stepOf({ ...geometry, assumed: true }), null);
  assert.equal(stepOf({ ...geometry, positions_mm: [0, null] }), null);
  assert.equal(stepOf({ ...geometry, spacing_mm: [null, 0.5, 0.5] }), null);
  assert.equal(firstSlab(null).mode, "off");
});

test("thickness is whole millimetres from 1 to 20", () => {
  assert.deepEqual(["3", 7.4, 0, 99, "", "a"].map(typedThickness), [3, 7, 1, 20, null, null]);
});

const blended = (mode, members, slices) => new Blender().blended(mode, members, slices);

/** The plain average and maximum, pixel by pixel. */
function plain(mode, members, slices) {
  const whole = members.reduce((sum, { mm }) => sum + mm, 0);
  const mean = (at) => Math.floor(slices.reduce((sum, slice, place) => sum + slice[at] * members[place].mm, 0) / whole + 0.5 + 1e-6);
  return Array.from(slices[0], (_, at) => (mode === "mip" ? Math.max(...slices.map((slice) => slice[at])) : mean(at)));
}

const noise = (count, size) => {
  let state = 7;
  const next = () => (state = (state * 1103515245 + 12345) & 0x7fffffff) >> 12;
  return Array.from({ length: count }, () => Int16Array.from({ length: size }, () => (next() % 4096) - 1024));
};
const UNEVEN = Array.from({ length: 90 }, (_, index) => index * 0.7 + (index % 3) * 0.05 + (index > 60 ? 9 : 0));

for (const [name, positions, step] of [["even", positionsOf(90, 0.625, -20), 0.625], ["of 1/3 mm", positionsOf(90, 1 / 3), 1 / 3], ["downwards", positionsOf(90, -0.625), 0.625], ["uneven, with a gap", UNEVEN, 0.7]]) {
  test(`slabs from slice to slice equal plain ones, however the reader scrolls: ${name}`, () => {
    const stack = noise(90, 64);
    const blender = new Blender();
    const way = [0, 1, 2, 3, 40, 41, 42, 47, 52, 51, 50, 49, 89, 88, 87, 30, 31, ...positionsOf(25, 1, 32), 56, 40, 39];
    for (const mode of ["average", "mip", "average"]) {
      for (const mm of [1, 5, 20]) {
        for (const index of way) {
          const members = slabAt(positions, step, index, mm);
          const slices = members.map((member) => stack[member.index]);
          assert.deepEqual([...blender.blended(mode, members, slices)], plain(mode, members, slices), `${mode} of ${mm} mm at ${index}`);
        }
      }
    }
  });
}

test("the average weighs by millimetres, the maximum takes every slice", () => {
  const slices = [Int16Array.of(10, -1000, 3), Int16Array.of(20, -1000, -4), Int16Array.of(40, 3000, -4)];
  const members = [{ index: 1, mm: 2 }, { index: 0, mm: 1 }, { index: 2, mm: 1 }];
  assert.deepEqual([...blended("average", members, slices)], [20, 0, 0], "(20 + 20 + 40) / 4, (-2000 - 1000 + 3000) / 4, (6 - 4 - 4) / 4 = -0.5");
  assert.deepEqual([...blended("mip", members, slices)], [40, 3000, 3]);
  assert.deepEqual([...slices[0]], [10, -1000, 3], "the slices themselves are not changed");
});
