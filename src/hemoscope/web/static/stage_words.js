// What stands around the slice: the patient's sides, the scale, and the reason where either is missing.

import { geometryCaution, scaleBar } from "./geometry.js";
import { t } from "./messages.js";

const find = (selector) => document.querySelector(selector);

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
