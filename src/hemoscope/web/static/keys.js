// The keyboard: one table a page, which is also the page's help. Single keys can be switched off (WCAG 2.1.4).

import { el, find } from "./element.js";
import { isKnown, t } from "./messages.js";
import { remembered } from "./storage.js";

const SWITCH = "hemoscope.single-keys";
const TYPING = "input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select";
const PLACES = { BracketLeft: "[", BracketRight: "]", Slash: "/", Equal: "+", Minus: "-", Comma: ",", Period: "." };
const SHIFTED = { Slash: "?", BracketLeft: "{", BracketRight: "}" };
// What a slider takes for itself while it has the focus.
const SLIDING = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "PageUp", "PageDown", "Home", "End"];

export const singleKeysOn = () => remembered.get(SWITCH) !== "off";

export const isTyping = () => Boolean(document.activeElement?.matches(TYPING));

/**
 * The key of a shortcut, whatever the layout: the letter itself, or under one without it (Cyrillic, Greek, Arabic) the
 * letter of the same place on a Latin keyboard. Digits also where they need Shift, as on French keyboards.
 */
export function keyOf(event, known) {
  if (known.has(event.key)) return event.key;
  const { code = "", key, shiftKey } = event;
  if (/^Digit\d$/.test(code) && !shiftKey) return code.at(-1);
  const foreign = key.length === 1 && key.charCodeAt(0) > 127;
  return foreign ? latinAt(code, shiftKey) : key;
}

function latinAt(code, shiftKey) {
  if (/^Key[A-Z]$/.test(code)) return code.at(-1).toLowerCase();
  return (shiftKey && SHIFTED[code]) || PLACES[code];
}

/** Whether the key belongs to the browser: "[" on a German keyboard is AltGr and 8, and no shortcut of it. */
export const isCommand = (event) => !event.getModifierState?.("AltGraph") && (event.ctrlKey || event.metaKey || event.altKey);

/** The letter that is pressed with Ctrl, or on a Mac with Cmd, and nothing else. */
function commandOf(event, known) {
  const isPlain = event.ctrlKey !== event.metaKey && !event.altKey && !event.shiftKey;
  return isPlain ? keyOf(event, known)?.toLowerCase() : undefined;
}

function belongsToField({ target, key }) {
  if (target.closest?.(TYPING)) return true;
  return Boolean(target.matches?.("input[type=range]")) && SLIDING.includes(key);
}

const isTaken = (event) => event.defaultPrevented || find("dialog[open]") || belongsToField(event);
const ignored = (event) => isCommand(event) || isTaken(event) || (event.key.length === 1 && !singleKeysOn());

/** Listen for a table of {keys, command, shown, does, act}; `act(event)` is called for any of `keys`, or for the letter `command` with Ctrl or Cmd. */
export function listenToKeys(bindings) {
  const actions = new Map(bindings.flatMap(({ keys, act }) => keys.map((key) => [key, act])));
  const commands = new Map(bindings.filter(({ command }) => command).map(({ command, act }) => [command, act]));
  document.addEventListener("keydown", (event) => {
    const command = commands.get(commandOf(event, commands));
    const act = command ?? actions.get(keyOf(event, actions));
    if (!act || (command ? isTaken(event) : ignored(event))) return;
    if (event.key === "Enter" && event.target.closest("a, button, summary")) return;
    event.preventDefault();
    act(event);
  });
}

function keySwitch() {
  const box = el("input", { type: "checkbox", id: "single-keys" });
  box.checked = singleKeysOn();
  box.addEventListener("change", () => remembered.set(SWITCH, box.checked ? "on" : "off"));
  return el("label", { class: "check", for: "single-keys" }, box, ` ${t("keys.single")}`);
}

const LEGEND = ["keys.legend-dashed", "keys.legend-weak", "keys.legend-unsure"];

/** Fill the help dialog from the same table, and say what frames and words mean. */
export function fillHelp(dialog, bindings) {
  const rows = bindings.map(({ shown, does }) =>
    el("tr", {}, el("th", { scope: "row" }, ...shown.map((key) => el("kbd", { text: isKnown(`key.${key}`) ? t(`key.${key}`) : key }))), el("td", { text: does })),
  );
  dialog.querySelector(".dialog-body").replaceChildren(el("table", { class: "keys" }, el("tbody", {}, ...rows)), keySwitch(), el("ul", { class: "legend" }, LEGEND.map((key) => el("li", { text: t(key) }))));
}
