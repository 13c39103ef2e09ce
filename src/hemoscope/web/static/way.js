// The keyboard's way from the search into the list, and from a study back to its place in it.

import { takePlace } from "./query.js";

/** Escape shows all studies again; Enter and the arrow lead to the first study found. `search(words)` reloads the list. */
export function wireSearchKeys(field, body, search) {
  field.addEventListener("keydown", async (event) => {
    if (!["Escape", "Enter", "ArrowDown"].includes(event.key) || event.isComposing) return;
    event.preventDefault();
    const leaves = event.key === "Escape";
    if (leaves) field.value = "";
    if (leaves) field.blur();
    await search(field.value.trim());
    if (!leaves && document.activeElement === field) body.querySelector(".row-link")?.focus();
  });
}

/** The study that was read last is where the reader left the list: its row has the focus again, or the first row if a filter hides it now. */
export function returnToPlace(body) {
  const place = takePlace();
  const link = place && (body.querySelector(`[data-study="${CSS.escape(place)}"] .row-link`) ?? body.querySelector(".row-link"));
  if (!link || document.activeElement !== document.body) return;
  link.focus({ preventScroll: true });
  link.closest("tr").scrollIntoView({ block: "nearest" });
}
