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
const COARSEST_MM = 5; // between slices that have come: a usual thick slice; across more nothing is interpolated

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

/**
 * For each slice, the two [lower, upper] between which a plane over it is interpolated: the nearest that have come, or
 * null where they are too far apart or a gap of the series lies between.
 */
function pairsOf({ positions, step }, slices) {
  const last = positions.length - 1;
  const apart = (a, b) => positions[b] - positions[a];
  const widest = Math.max(COARSEST_MM, WIDEST_GAP * step);
  const [below, above] = [new Int32Array(last + 1), new Int32Array(last + 1)];
  for (let index = 0; index <= last; index += 1) {
    const joined = index > 0 && apart(index - 1, index) <= WIDEST_GAP * step ? below[index - 1] : -1;
    below[index] = slices[index] ? index : joined;
  }
  for (let index = last; index >= 0; index -= 1) {
    const joined = index < last && apart(index, index + 1) <= WIDEST_GAP * step ? above[index + 1] : -1;
    above[index] = slices[index] ? index : joined;
  }
  return Array.from({ length: last + 1 }, (_, index) => {
    const [lower, upper] = [below[index], above[index + 1] ?? -1];
    const joined = index < last && lower >= 0 && upper >= 0 && apart(index, index + 1) <= WIDEST_GAP * step && apart(lower, upper) <= widest;
    return joined ? [lower, upper] : null;
  });
}

/** Looks points of the stack up; neighbouring points lie between the same slices, so the search starts there. */
class Sampler {
  constructor(volume, slices) {
    Object.assign(this, volume, { slices, between: pairsOf(volume, slices) });
    this.last = volume.positions.length - 1;
    this.index = 0;
  }

  /** The HU of a slice over (across, along) mm of its directions, or NOTHING. */
  of(index, across, along) {
    const slice = this.slices[index];
    const column = Math.round((across - this.acrossOf[index]) / this.columnMm);
    const row = Math.round((along - this.downOf[index]) / this.rowMm);
    const inside = slice && row >= 0 && row < this.rows && column >= 0 && column < this.columns;
    return inside ? slice[row * this.columns + column] : NOTHING;
  }

  /** The slice at or below `at`. */
  #slice(at) {
    const { positions, last } = this;
    while (this.index < last && at >= positions[this.index + 1]) this.index += 1;
    while (this.index > 0 && at < positions[this.index]) this.index -= 1;
    return this.index;
  }

  /** The HU at `at` mm along the stack. */
  at(at, across, along) {
    const { positions, last } = this;
    const index = this.#slice(at);
    if (at < positions[0] || index >= last) return Math.abs(at - positions[index]) <= this.step / 2 ? this.of(index, across, along) : NOTHING;
    const pair = this.between[index];
    if (!pair) return NOTHING;
    const lower = this.of(pair[0], across, along);
    const upper = this.of(pair[1], across, along);
    if (lower === NOTHING || upper === NOTHING) return NOTHING;
    return Math.round(lower + ((upper - lower) * (at - positions[pair[0]])) / (positions[pair[1]] - positions[pair[0]]));
  }
}

/** A plane through `point`: {hounsfield, rows, columns, mm}, of the slices (Int16Array by index) that have come. */
export function reformatted(volume, slices, plane, point) {
  const frame = frameOf(volume, plane);
  const { normal, right, down, low, high } = volume;
  const { across } = PLANES[plane];
  const hounsfield = new Int16Array(frame.rows * frame.columns);
  const sampler = new Sampler(volume, slices);
  let [x, y] = point;
  for (let row = 0; row < frame.rows; row += 1) {
    const z = high[2] - (row + 0.5) * frame.mm;
    for (let column = 0; column < frame.columns; column += 1) {
      // No point is made of its three numbers here: a plane has 200,000 pixels, and is cut while a reader drags.
      if (across === 0) x = low[0] + (column + 0.5) * frame.mm;
      else y = low[1] + (column + 0.5) * frame.mm;
      const at = normal[0] * x + normal[1] * y + normal[2] * z;
      hounsfield[row * frame.columns + column] = sampler.at(at, right[0] * x + right[1] * y + right[2] * z, down[0] * x + down[1] * y + down[2] * z);
    }
  }
  return { hounsfield, ...frame };
}

/** In which order slices are fetched: every eighth or so, at most COARSEST_MM apart, then those half way, until all have come. */
export function coarseFirst({ positions, step }) {
  let stride = 1;
  while (stride < 16 && stride * 2 * step <= COARSEST_MM) stride *= 2;
  const passes = [{ first: 0, stride }];
  for (let half = stride / 2; half >= 1; half /= 2) passes.push({ first: half, stride: half * 2 });
  return passes.map(({ first, stride: by }) => ({ first, stride: by, count: Math.max(Math.ceil((positions.length - first) / by), 0) })).filter(({ count }) => count > 0);
}
