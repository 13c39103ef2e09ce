// What stands around the slice: the patient's sides, the scale, the reason where either is missing, HU and the window.

import { find } from "./element.js";
import { geometryCaution, scaleBar } from "./geometry.js";
import { t } from "./messages.js";
import { presetOf, PRESETS, windowWords } from "./window.js";

export const SLOW_MS = 200; // before the page says that a slice is loading

/** The letters at the edges (`shown` as by shownGeometry), and why there are none. */
export function showSides(shown, geometry) {
  for (const edge of ["left", "right", "top", "bottom"]) find(`#mark-${edge}`).textContent = shown.marks?.[edge] ?? "";
  const caution = geometryCaution(geometry);
  find("#geometry-caution").textContent = caution;
  find("#geometry-caution").hidden = !caution;
}

/** The scale for `pixelsPerMm` on a stage `width` pixels wide. */
export function showScale(shown, pixelsPerMm, width) {
  find("#scale").hidden = !shown.millimetres;
  if (!shown.millimetres) return;
  const { mm, pixels } = scaleBar(pixelsPerMm, width / 4);
  find("#scale-bar").style.width = `${pixels}px`;
  find("#scale-text").textContent = t("viewer.scale", { mm });
}

/** The HU of a pixel {hounsfield, column, row} under the pointer; null for none. */
export function showUnder(pixel) {
  find("#corner-hu").textContent = pixel ? t("viewer.hover", { value: pixel.hounsfield, column: pixel.column, row: pixel.row }) : "";
}

/** The window, in words, in its buttons and in the fields where it is typed. */
export function showWindow(window, inverted) {
  const preset = presetOf(window);
  find("#corner-window").textContent = windowWords(window, inverted);
  for (const button of document.querySelectorAll("[data-preset]")) button.setAttribute("aria-pressed", PRESETS[Number(button.dataset.preset) - 1] === preset);
  find("#invert").setAttribute("aria-pressed", inverted);
  find("#more-windows").value = "";
  for (const [id, value] of [["#level", window.center], ["#width", window.width]]) find(id).value = value;
}

/**
 * Which slice is shown, and where, if that was measured: "12 / 40  35.0 mm" along the normal, as in the report.
 * Two linked series say the height of the `table` instead, which under a tilted gantry is another: "12 / 40  table 32.9 mm".
 */
export function placeWords(index, { slices, positions_mm: positions, assumed }, table) {
  const mm = table?.[index] ?? (assumed ? null : positions[index]);
  const place = { number: index + 1, total: slices, mm: mm?.toFixed(1) };
  if (place.mm === undefined) return t("viewer.place", place);
  return t(table ? "viewer.place-table" : "viewer.place-mm", place);
}

/** Say the place of the slice that is read. */
export function showPlace({ index, geometry, table }) {
  find("#corner-slice").textContent = placeWords(index, geometry, table);
}
