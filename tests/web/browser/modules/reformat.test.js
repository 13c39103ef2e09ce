import assert from "node:assert/strict";
import test from "node:test";

import { frameOf, inPlane, placeOf, pointOf, reformatted, underPlane, volumeOf } from "../../../../src/hemoscope/web/static/reformat.js";

const [ROWS, COLUMNS, SLICES] = [40, 48, 20];
const radians = (degrees) => (degrees * Math.PI) / 180;
/** Directions of a row and a column: mirrored, upside down, rotated, and tilted by a gantry. */
const ORIENTATIONS = {
  axial: [1, 0, 0, 0, 1, 0],
  mirrored: [-1, 0, 0, 0, 1, 0],
  prone: [-1, 0, 0, 0, -1, 0],
  rotated: [0, 1, 0, -1, 0, 0],
  tilted: [1, 0, 0, 0, Math.cos(radians(20)), -Math.sin(radians(20))],
  "tilted the other way": [1, 0, 0, 0, Math.cos(radians(-15)), -Math.sin(radians(-15))],
};
// HU as a plane of the patient's axes: each axis can be told from the others, and from its opposite.
const huAt = ([x, y, z]) => Math.round(4 * x + 7 * y - 3 * z);

/** A stack whose table moves along z, in the order of `falling`, with pixels that are not square. */
function stackOf(orientation, falling = false) {
  const places = Array.from({ length: SLICES }, (_, index) => (falling ? SLICES - 1 - index : index));
  const [right, down] = [orientation.slice(0, 3), orientation.slice(3)];
  const middle = [0, 1].map((axis) => -(right[axis] * COLUMNS * 0.8 + down[axis] * ROWS) / 2);
  const geometry = { slices: SLICES, rows: ROWS, columns: COLUMNS, orientation, assumed: false, origins_mm: places.map((place) => [...middle, place * 2.5]) };
  geometry.spacing_mm = [2.5 * Math.abs(right[0] * down[1] - right[1] * down[0]), 1, 0.8];
  const volume = volumeOf(geometry);
  const hounsfield = (index) => Int16Array.from({ length: ROWS * COLUMNS }, (_, at) => huAt(pointOf(volume, { index, row: Math.floor(at / COLUMNS) + 0.5, column: (at % COLUMNS) + 0.5 })));
  return { geometry, volume, slices: places.map((_, index) => hounsfield(index)) };
}

for (const [name, orientation] of Object.entries(ORIENTATIONS)) {
  for (const falling of [false, true]) {
    test(`planes lie where they should: ${name}${falling ? ", from head to feet" : ""}`, () => {
      const { volume, slices } = stackOf(orientation, falling);
      const middle = pointOf(volume, { index: 10, row: ROWS / 2, column: COLUMNS / 2 });
      for (const plane of ["coronal", "sagittal"]) {
        const cut = reformatted(volume, slices, plane, middle);
        let found = 0;
        cut.hounsfield.forEach((value, at) => {
          if (value === -32768) return;
          found += 1;
          const point = underPlane(volume, cut, plane, { x: (at % cut.columns) + 0.5, y: Math.floor(at / cut.columns) + 0.5 }, middle);
          // Half a pixel in each direction of the slice, and half a slice above and below the stack.
          const ends = Math.min(point[2], 2.5 * (SLICES - 1) - point[2]) < 20 ? 3 * 1.3 : 0;
          assert.ok(Math.abs(value - huAt(point)) <= 0.5 * (7 + 4) + 2 + ends, `${plane}: ${value} at ${point}, not ${huAt(point)}`);
        });
        assert.ok(found > cut.hounsfield.length / 2, `${found} of ${cut.hounsfield.length}`);
      }
    });
  }
}

test("the head is up, the patient's left on the right of a coronal plane, the face on the left of a sagittal one", () => {
  const { volume } = stackOf(ORIENTATIONS.mirrored);
  const frame = frameOf(volume, "coronal");
  const centre = inPlane(volume, frame, "coronal", [0, 0, 25]);
  assert.ok(inPlane(volume, frame, "coronal", [5, 0, 25]).x > centre.x);
  assert.ok(inPlane(volume, frame, "coronal", [0, 0, 30]).y < centre.y);
  assert.ok(inPlane(volume, frame, "sagittal", [0, 5, 25]).x > inPlane(volume, frame, "sagittal", [0, 0, 25]).x);
});

test("a plane is in true proportions: 10 mm are as long across as down", () => {
  const { volume } = stackOf(ORIENTATIONS.axial);
  const frame = frameOf(volume, "sagittal");
  const [a, b] = [inPlane(volume, frame, "sagittal", [0, 0, 20]), inPlane(volume, frame, "sagittal", [0, 10, 30])];
  assert.ok(Math.abs(b.x - a.x - 12.5) < 1e-9);
  assert.ok(Math.abs(a.y - b.y - 12.5) < 1e-9);
  assert.deepEqual([frame.columns, frame.rows], [50, 63], "40 mm and 50 mm of 0.8 mm");
});

test("a point and its place in the stack are one", () => {
  const { volume } = stackOf(ORIENTATIONS.tilted, true);
  const place = { index: 7, row: 12.25, column: 30.5 };
  const back = placeOf(volume, pointOf(volume, place));
  assert.equal(back.index, 7);
  assert.ok(Math.abs(back.row - 12.25) + Math.abs(back.column - 30.5) < 1e-9);
});

test("what has not come, and a gap, stay empty", () => {
  const { volume, slices, geometry } = stackOf(ORIENTATIONS.axial);
  const middle = pointOf(volume, { index: 10, row: 20, column: 24 });
  const some = reformatted(volume, slices.map((slice, index) => (index < 10 ? slice : undefined)), "coronal", middle);
  assert.ok(some.hounsfield.slice(0, some.hounsfield.length / 2 - some.columns * 2).every((value) => value === -32768), "the upper half");
  assert.ok(some.hounsfield.at(-1) !== -32768);
  const apart = volumeOf({ ...geometry, origins_mm: geometry.origins_mm.map(([x, y, z], index) => [x, y, z + (index > 9 ? 20 : 0)]) });
  const gap = reformatted(apart, slices, "coronal", middle);
  const { y } = inPlane(apart, gap, "coronal", [0, 0, 9 * 2.5 + 11]);
  assert.equal(gap.hounsfield[Math.floor(y) * gap.columns + 20], -32768);
});

test("there are no planes without measured places", () => {
  const { geometry } = stackOf(ORIENTATIONS.axial);
  assert.equal(volumeOf({ ...geometry, assumed: true }), null);
  assert.equal(volumeOf({ ...geometry, origins_mm: null }), null);
  assert.equal(volumeOf({ ...geometry, origins_mm: undefined }), null, "studies of earlier versions");
  assert.equal(volumeOf({ ...geometry, orientation: null }), null);
  assert.equal(volumeOf({ ...geometry, slices: 3000, rows: 512, columns: 512, origins_mm: Array(3000).fill([0, 0, 0]) }), null, "too much for a browser's memory");
});
