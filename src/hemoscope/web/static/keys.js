// The keyboard: one table a page, which is also the page's help. Single keys can be switched off (WCAG 2.1.4).

import { el } from "./element.js";

const SWITCH = "hemoscope.single-keys";
const TYPING = "input:not([type=checkbox]):not([type=radio]), textarea, select";

export const singleKeysOn = () => localStorage.getItem(SWITCH) !== "off";

function ignored(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return true;
  if (document.querySelector("dialog[open]")) return true;
  if (event.target.closest?.(TYPING)) return true;
  return event.key.length === 1 && !singleKeysOn();
}

/** Listen for a table of {keys, shown, does, act}; `act(event)` is called for any of `keys`. */
export function listenToKeys(bindings) {
  const actions = new Map(bindings.flatMap(({ keys, act }) => keys.map((key) => [key, act])));
  document.addEventListener("keydown", (event) => {
    const act = actions.get(event.key);
    if (!act || ignored(event)) return;
    if (event.key === "Enter" && event.target.closest("a, button, summary")) return;
    event.preventDefault();
    act(event);
  });
}

function keySwitch() {
  const box = el("input", { type: "checkbox", id: "single-keys" });
  box.checked = singleKeysOn();
  box.addEventListener("change", () => localStorage.setItem(SWITCH, box.checked ? "on" : "off"));
  return el("label", { class: "check", for: "single-keys" }, box, " Single-key shortcuts on");
}

/** Fill the help dialog from the same table. */
export function fillHelp(dialog, bindings) {
  const rows = bindings.map(({ shown, does }) =>
    el("tr", {}, el("th", { scope: "row" }, ...shown.map((key) => el("kbd", { text: key }))), el("td", { text: does })),
  );
  dialog.querySelector(".dialog-body").replaceChildren(el("table", { class: "keys" }, el("tbody", {}, ...rows)), keySwitch());
}
