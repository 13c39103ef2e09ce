// Slices of two series at the same place, by the table's position, and the same part of them on two stages, by the patient's
// millimetres: the fields of view of two reconstructions differ. Pure functions of plain values.

import { isOrientation } from "./geometry.js";
import { placement, zoomWithin } from "./view.js";

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** What a viewer shows: the patient's point [x, y, z] at the middle of its stage, and screen pixels for a millimetre. */
export function shownBy({ view, stage, image }, { origins_mm: origins, orientation }, index) {
  const { left, top, scale } = placement(view, stage, image);
  const across = (stage.width / 2 - left) / scale - image.columnSize / 2;
  const along = (stage.height / 2 - top) / scale - image.rowSize / 2;
  return { scale, point: origins[index].map((value, axis) => value + across * orientation[axis] + along * orientation[axis + 3]) };
}

/** The view by which another viewer shows the same part on its slice `index`. */
export function viewOf({ scale: wanted, point }, { stage, image }, { origins_mm: origins, orientation }, index) {
  const from = point.map((value, axis) => value - origins[index][axis]);
  const fitted = placement({ zoom: 1, panX: 0, panY: 0 }, stage, image);
  const zoom = zoomWithin(wanted / fitted.scale);
  const scale = fitted.scale * zoom;
  const panOf = (mm, count, size) => -(mm + size / 2 - (count * size) / 2) * scale;
  return { zoom, panX: panOf(dot(from, orientation), image.columns, image.columnSize), panY: panOf(dot(from, orientation.slice(3)), image.rows, image.rowSize) };
}

/** The table's position of each slice in mm: the height of its middle, LPS z. Null where it was not measured. */
export function tablePositions({ origins_mm: origins, orientation, spacing_mm: [, rowMm, columnMm], rows, columns, slices, assumed }) {
  const placed = !assumed && origins?.length === slices && slices > 0 && isOrientation(orientation) && rowMm > 0 && columnMm > 0;
  if (!placed) return null;
  const middle = (orientation[2] * columnMm * (columns - 1) + orientation[5] * rowMm * (rows - 1)) / 2;
  return origins.map(([, , z]) => z + middle);
}

/** The slice nearest to a position, and how far away it is: {index, mm}. */
export function nearestSlice(positions, at) {
  const index = positions.reduce((best, position, other) => (Math.abs(position - at) < Math.abs(positions[best] - at) ? other : best), 0);
  return { index, mm: Math.abs(positions[index] - at) };
}

/** How far a slice may be away to show the same place: half the widest distance between neighbours, and some rounding. */
export function reachOf(positions) {
  const steps = positions.slice(1).map((position, before) => Math.abs(position - positions[before])).sort((a, b) => a - b);
  return (steps[Math.floor(steps.length / 2)] ?? 0) / 2 + 0.05;
}
