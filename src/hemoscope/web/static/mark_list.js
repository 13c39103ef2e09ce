// The list of measurements beside the slices.

import { el, icon } from "./element.js";
import { measuredWords } from "./measure.js";
import { t } from "./messages.js";

/** A measurement in words: "Length: 23.4 mm". */
export const foundWords = (mark) => t("measure.found", { kind: t(`measure.${mark.kind}`), values: measuredWords(mark.kind, mark.found).join(", ") });

const item = (mark, { onSlice, onDelete }) =>
  el(
    "li",
    {},
    el("button", { class: "quiet small mark-place", dataset: { mark: `${mark.measurement_id} place` }, onclick: () => onSlice(mark.slice) }, t("viewer.slice", { number: mark.slice + 1 })),
    el("span", { class: "mark-words", text: foundWords(mark) }),
    el("button", { class: "quiet small", dataset: { mark: `${mark.measurement_id} delete` }, "aria-label": t(`measure.delete-${mark.kind}`, { number: mark.slice + 1 }), onclick: () => onDelete(mark) }, icon("close")),
  );

/** List measurements in an element, by slice, and below them a `trouble` (an element, or null); hidden without both. */
export function listMarks(list, marks, trouble, acts) {
  const sorted = [...marks].sort((a, b) => a.slice - b.slice);
  const focused = list.contains(document.activeElement) && document.activeElement.dataset.mark;
  list.hidden = sorted.length === 0 && !trouble;
  list.replaceChildren(...(list.hidden ? [] : [el("h2", { text: t("measure.title") }), el("ul", {}, sorted.map((mark) => item(mark, acts)))]), ...(trouble ? [trouble] : []));
  if (focused) list.querySelector(`[data-mark="${focused}"]`)?.focus(); // another reader's measurement takes no focus
}
