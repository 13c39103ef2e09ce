// Coronal and sagittal planes through axial slices: pure functions of plain values, run by a worker (planes_worker.js).
// A plane lies in the patient, not in the stack: every pixel is found by the slices' own positions and directions, so a
// tilted gantry, unequal distances and any order of storage give a straight head. A point is [x, y, z] in mm (LPS).

import { isOrientation } from "./geometry.js";

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const plus = (point, ...moves) => moves.reduce((sum, [mm, direction]) => sum.map((value, axis) => value + mm * direction[axis]), point);

const NOTHING = -32768; // black in every window: no slice lies there, or it has not come
const MOST_BYTES = 500e6; // of a stack in a browser's memory
const WIDEST_GAP = 2; // distances between slices; wider ones stay empty

/** Across the picture, patient's axis 0 (to the Left) or 1 (to the back); down is to the feet in both. */
export const PLANES = Object.freeze({
  coronal: Object.freeze({ across: 0, fixed: 1, letters: ["R", "L"] }),
  sagittal: Object.freeze({ across: 1, fixed: 0, letters: ["A", "P"] }),
});

/** What is needed to cut planes through a study, or null where it was not measured or does not fit. */
export function volumeOf({ origins_mm: origins, orientation, spacing_mm: [step, rowMm, columnMm], rows, columns, slices, assumed }) {
  const placed = !assumed && origins?.length === slices && slices > 1 && isOrientation(orientation);
  const sized = [step, rowMm, columnMm].every((mm) => mm > 0) && slices * rows * columns * 2 <= MOST_BYTES;
  if (!placed || !sized) return null;
  const [right, down] = [orientation.slice(0, 3), orientation.slice(3)];
  const upwards = cross(right, down);
  const sign = dot(upwards, origins.at(-1)) >= dot(upwards, origins[0]) ? 1 : -1;
  const normal = upwards.map((value) => value * sign); // the way in which the slices count
  const along = (direction) => origins.map((origin) => dot(direction, origin));
  const corners = origins.flatMap((origin) =>
    [-0.5, rows - 0.5].flatMap((row) => [-0.5, columns - 0.5].flatMap((column) =>
      [-step / 2, step / 2].map((mm) => plus(origin, [row * rowMm, down], [column * columnMm, right], [mm, normal])))));
  const bound = (choose) => [0, 1, 2].map((axis) => corners.reduce((found, corner) => choose(found, corner[axis]), corners[0][axis]));
  return { origins, right, down, normal, step, rowMm, columnMm, rows, columns, positions: along(normal), acrossOf: along(right), downOf: along(down), low: bound(Math.min), high: bound(Math.max) };
}

/** The point of a place in the stack: slice, and row and column where the first pixel covers 0 to 1. */
export function pointOf(volume, { index, row, column }) {
  return plus(volume.origins[index], [(row - 0.5) * volume.rowMm, volume.down], [(column - 0.5) * volume.columnMm, volume.right]);
}

/** The place {index, row, column} of a point: the nearest slice, and where the point lies over it. */
export function placeOf({ positions, acrossOf, downOf, normal, right, down, rowMm, columnMm }, point) {
  const at = dot(normal, point);
  const index = positions.reduce((best, position, other) => (Math.abs(position - at) < Math.abs(positions[best] - at) ? other : best), 0);
  return { index, row: (dot(down, point) - downOf[index]) / rowMm + 0.5, column: (dot(right, point) - acrossOf[index]) / columnMm + 0.5 };
}

/** The picture of a plane: {columns, rows, mm} with square pixels of `mm`. */
export function frameOf({ low, high, rowMm, columnMm }, plane) {
  const mm = Math.min(rowMm, columnMm);
  const { across } = PLANES[plane];
  return { mm, columns: Math.round((high[across] - low[across]) / mm), rows: Math.round((high[2] - low[2]) / mm) };
}

/** Where a point lies in a plane's picture, in its pixels from the left and from the top. */
export function inPlane({ low, high }, { mm }, plane, point) {
  const { across } = PLANES[plane];
  return { x: (point[across] - low[across]) / mm, y: (high[2] - point[2]) / mm };
}

/** The point under a place of a plane's picture; `through` gives what the picture does not. */
export function underPlane({ low, high }, { mm }, plane, { x, y }, through) {
  const point = [...through];
  point[PLANES[plane].across] = low[PLANES[plane].across] + x * mm;
  point[2] = high[2] - y * mm;
  return point;
}

/** The HU of a slice over (across, along) mm of its directions, or NOTHING. */
function sampled(volume, slices, index, across, along) {
  const slice = slices[index];
  const column = Math.round((across - volume.acrossOf[index]) / volume.columnMm);
  const row = Math.round((along - volume.downOf[index]) / volume.rowMm);
  const inside = slice && row >= 0 && row < volume.rows && column >= 0 && column < volume.columns;
  return inside ? slice[row * volume.columns + column] : NOTHING;
}

/** The HU between slice `index` and the next one. */
function between(volume, slices, index, at, across, along) {
  const { positions, step } = volume;
  const last = positions.length - 1;
  if (at < positions[0] || index >= last) return Math.abs(at - positions[index]) <= step / 2 ? sampled(volume, slices, index, across, along) : NOTHING;
  const gap = positions[index + 1] - positions[index];
  if (gap > WIDEST_GAP * step) return NOTHING;
  const [lower, upper] = [sampled(volume, slices, index, across, along), sampled(volume, slices, index + 1, across, along)];
  if (lower === NOTHING || upper === NOTHING) return NOTHING;
  return Math.round(lower + ((upper - lower) * (at - positions[index])) / gap);
}

/** A plane through `point`: {hounsfield, rows, columns, mm}, of the slices (Int16Array by index) that have come. */
export function reformatted(volume, slices, plane, point) {
  const frame = frameOf(volume, plane);
  const { positions, normal, right, down } = volume;
  const hounsfield = new Int16Array(frame.rows * frame.columns);
  const last = positions.length - 1;
  let index = 0;
  for (let row = 0; row < frame.rows; row += 1) {
    for (let column = 0; column < frame.columns; column += 1) {
      const here = underPlane(volume, frame, plane, { x: column + 0.5, y: row + 0.5 }, point);
      const at = dot(normal, here);
      while (index < last && at >= positions[index + 1]) index += 1;
      while (index > 0 && at < positions[index]) index -= 1;
      hounsfield[row * frame.columns + column] = between(volume, slices, index, at, dot(right, here), dot(down, here));
    }
  }
  return { hounsfield, ...frame };
}
