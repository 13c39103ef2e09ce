// Slices of two series at the same place, by the table's position. Pure functions of plain values.

import { isOrientation } from "./geometry.js";

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
