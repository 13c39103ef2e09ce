// Where a slice lies in the patient: letters for its four edges, and lengths in millimetres.
// DICOM's patient axes point to the Left, to the back (Posterior) and to the Head: PS3.3 C.7.6.2.1.1.

import { t } from "./messages.js";

const AXES = [
  ["L", "R"],
  ["P", "A"],
  ["H", "F"],
];
const OPPOSITE = { L: "R", R: "L", P: "A", A: "P", H: "F", F: "H" };
const SECONDARY = 0.4; // a second axis is named if the edge is tilted towards it by more than about 24 degrees
const SCALES_MM = [100, 50, 20, 10, 5, 2, 1];

/** Letters for a direction, the axis it follows most first: "L", "PF". */
export function directionLetters(direction) {
  return direction
    .map((value, axis) => ({ size: Math.abs(value), letter: AXES[axis][value > 0 ? 0 : 1] }))
    .sort((a, b) => b.size - a.size)
    .filter(({ size }, place) => place === 0 || size > SECONDARY)
    .map(({ letter }) => letter)
    .join("");
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** Whether six numbers are two perpendicular unit vectors, as (0020,0037) must be. */
export function isOrientation(numbers) {
  if (!Array.isArray(numbers) || numbers.length !== 6 || !numbers.every(Number.isFinite)) return false;
  const [row, column] = [numbers.slice(0, 3), numbers.slice(3)];
  const unit = (vector) => Math.abs(dot(vector, vector) - 1) < 0.02;
  return unit(row) && unit(column) && Math.abs(dot(row, column)) < 0.02;
}

/**
 * Letters for the edges of the picture from Image Orientation (Patient), (0020,0037).
 * The first three numbers are the direction along a row (right on the screen), the last three along a column (down).
 * Null if the orientation is unknown.
 */
export function edgeLetters(orientation) {
  if (!isOrientation(orientation)) return null;
  const right = directionLetters(orientation.slice(0, 3));
  const bottom = directionLetters(orientation.slice(3));
  const opposite = (letters) => [...letters].map((letter) => OPPOSITE[letter]).join("");
  return { left: opposite(right), right, top: opposite(bottom), bottom };
}

/** The parts of a study's geometry that may be shown: marks and millimetres only if they were measured. */
export function shownGeometry(geometry) {
  const [, row, column] = geometry.spacing_mm;
  const known = row > 0 && column > 0;
  return {
    marks: geometry.assumed ? null : edgeLetters(geometry.orientation),
    millimetres: known && !geometry.assumed,
    // Assumed spacing still gives the aspect ratio of a pixel.
    rowSize: known ? row : 1,
    columnSize: known ? column : 1,
  };
}

/** The reason why there are no marks or no scale; empty if there are both. */
export function geometryCaution(geometry) {
  const shown = shownGeometry(geometry);
  if (geometry.assumed) return t("viewer.geometry-assumed");
  if (!shown.marks) return t(shown.millimetres ? "viewer.no-sides" : "viewer.no-sides-no-scale");
  return shown.millimetres ? "" : t("viewer.no-scale");
}

/** The longest round length that fits: {mm, pixels}. */
export function scaleBar(pixelsPerMm, mostPixels) {
  const mm = SCALES_MM.find((length) => length * pixelsPerMm <= mostPixels) ?? SCALES_MM.at(-1);
  return { mm, pixels: mm * pixelsPerMm };
}
