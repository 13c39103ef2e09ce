// Lengths and Hounsfield units on a slice, as hemoscope/store/measurements.py computes them (the tests compare): while
// a region is drawn the page cannot wait for the server. A point is {row, column} in pixels, the first pixel from 0 to 1.

import { t } from "./messages.js";

/** A distance in mm on pixels of (rowSize, columnSize) mm. */
export function lengthMm(from, to, { rowSize, columnSize }) {
  return Math.hypot((to.row - from.row) * rowSize, (to.column - from.column) * columnSize);
}

const ordered = (a, b) => (a < b ? [a, b] : [b, a]);

/** Whether a pixel's centre lies in the region, as a function of (row, column). */
function insideOf(kind, [a, b]) {
  const [top, bottom] = ordered(a.row, b.row);
  const [left, right] = ordered(a.column, b.column);
  if (kind === "rectangle") return (row, column) => row + 0.5 >= top && row + 0.5 <= bottom && column + 0.5 >= left && column + 0.5 <= right;
  const [halfRow, halfColumn] = [Math.max((bottom - top) / 2, 1e-9), Math.max((right - left) / 2, 1e-9)];
  const [midRow, midColumn] = [(top + bottom) / 2, (left + right) / 2];
  return (row, column) => ((row + 0.5 - midRow) / halfRow) ** 2 + ((column + 0.5 - midColumn) / halfColumn) ** 2 <= 1;
}

/** {mean_hu, sd_hu, lowest_hu, highest_hu, pixels} of the pixels with their centre in an ellipse or a rectangle; null if there is none. */
export function regionOf(kind, points, slice) {
  const inside = insideOf(kind, points);
  const [top, bottom] = ordered(points[0].row, points[1].row).map(Math.floor);
  const [left, right] = ordered(points[0].column, points[1].column).map(Math.floor);
  let [pixels, sum, squares, lowest, highest] = [0, 0, 0, Infinity, -Infinity];
  for (let row = Math.max(top, 0); row <= Math.min(bottom, slice.rows - 1); row += 1) {
    for (let column = Math.max(left, 0); column <= Math.min(right, slice.columns - 1); column += 1) {
      if (!inside(row, column)) continue;
      const value = slice.hounsfield[row * slice.columns + column];
      pixels += 1;
      sum += value;
      squares += value * value;
      lowest = Math.min(lowest, value);
      highest = Math.max(highest, value);
    }
  }
  if (pixels === 0) return null;
  const mean = sum / pixels;
  return { mean_hu: mean, sd_hu: Math.sqrt(Math.max(squares / pixels - mean * mean, 0)), lowest_hu: lowest, highest_hu: highest, pixels };
}

/** The values of a measurement of a kind with these points; null if it measures nothing. */
export function measured(kind, points, slice, shape) {
  if (kind === "probe") {
    const row = Math.min(Math.floor(points[0].row), slice.rows - 1);
    const column = Math.min(Math.floor(points[0].column), slice.columns - 1);
    const value = slice.hounsfield[row * slice.columns + column];
    return { mean_hu: value, sd_hu: 0, lowest_hu: value, highest_hu: value, pixels: 1 };
  }
  if (kind === "length") return { length_mm: lengthMm(points[0], points[1], shape) };
  const region = regionOf(kind, points, slice);
  const [a, b] = points;
  const box = Math.abs(a.row - b.row) * shape.rowSize * Math.abs(a.column - b.column) * shape.columnSize;
  return region && { ...region, area_mm2: kind === "ellipse" ? (box * Math.PI) / 4 : box };
}

/** The lines of text beside a measurement: ["23.4 mm"], ["58.1 HU  SD 7.0", "45 to 80 HU  112 mm²"]. */
export function measuredWords(kind, found) {
  if (kind === "length") return [t("measure.mm", { value: found.length_mm.toFixed(1) })];
  if (kind === "probe") return [t("measure.hu", { value: found.lowest_hu })];
  return [t("measure.mean", { mean: found.mean_hu.toFixed(1), sd: found.sd_hu.toFixed(1) }), t("measure.range-area", { low: found.lowest_hu, high: found.highest_hu, area: found.area_mm2.toFixed(0) })];
}
