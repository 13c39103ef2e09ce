// The controls of the stage: buttons, sliders, keys and gestures, all acting on one Reading.

import { find } from "./element.js";
import { wireGestures } from "./gestures.js";
import { heatKeys, wireHeat } from "./heat_controls.js";
import { KeyMeasure } from "./key_measure.js";
import { t } from "./messages.js";
import { wirePlanes } from "./planes.js";
import { slabKeys, wireSlab } from "./slab_view.js";
import { presetName, PRESETS, typedWindow } from "./window.js";

const PAGE = 5;
const MEASURES = ["length", "ellipse", "rectangle", "probe"];
const TOOLS = ["window", "scroll", "pan", ...MEASURES];
const GRAB = "grab"; // the tool of a drag that begins on a handle of a measurement
const reachOf = (pointerType) => (pointerType === "touch" ? 22 : 8); // screen pixels from a handle
let keyMeasure = null;
let tool = null; // until one is chosen, a mouse windows and a finger scrolls

const isMeasuring = () => MEASURES.includes(tool);
const chosenTool = (pointerType) => tool ?? (pointerType === "touch" ? "scroll" : "window");

function showTool() {
  const shown = chosenTool(matchMedia("(pointer: coarse)").matches ? "touch" : "mouse");
  for (const name of TOOLS) find(`#tool-${name}`).setAttribute("aria-pressed", name === shown);
}

/** Measuring is refused where the pixel spacing is not known: a length without a scale is a wrong length. */
export function allowMeasures(reading) {
  const known = reading.shown.millimetres;
  for (const name of MEASURES) {
    const button = find(`#tool-${name}`);
    button.disabled = !known && name !== "probe";
    if (button.disabled) button.title = t("tools.no-measuring");
  }
}

function choose(reading, name) {
  tool = tool === name && MEASURES.includes(name) ? null : name;
  reading.slab.setMeasuring(isMeasuring());
  keyMeasure.follow();
  showTool();
}

function wireWindows(reading) {
  const more = find("#more-windows");
  more.append(...PRESETS.slice(3).map((one) => new Option(t("window.option", { name: presetName(one), key: one.key }), one.key)));
  more.addEventListener("change", () => {
    reading.setWindow(PRESETS.find(({ key }) => key === more.value) ?? reading.window);
    more.blur();
  });
  for (const id of ["#level", "#width"]) {
    find(id).addEventListener("change", () => {
      const given = typedWindow(find("#level").value, find("#width").value);
      reading.setWindow(given ?? reading.window);
    });
    find(id).addEventListener("keydown", (event) => ["Enter", "Escape"].includes(event.key) && event.target.blur());
  }
  find("#invert").addEventListener("click", () => reading.setInverted(!reading.inverted));
}

/** What is near a place on the stage, if it can be taken hold of: the tool for HU measures there. */
const nearby = (marks, x, y, pointerType) => (tool === "probe" ? marks.near() : marks.near(x, y, reachOf(pointerType)));

const measuring = (reading, marks) => ({
  measures: (name) => [GRAB, ...MEASURES].includes(name),
  grabs: (x, y, pointerType) => nearby(marks, x, y, pointerType),
  measureStart: (name, x, y) => {
    const point = reading.viewer?.pointAt(x, y);
    if (!point) return;
    if (name === GRAB) {
      reading.slab.setMeasuring(true); // the HU are those of the single slice, also before a measuring tool is chosen
      marks.grab(point);
    } else if (!find(`#tool-${name}`).disabled) marks.start(name, point);
  },
  measureMove: (x, y) => {
    const point = reading.viewer?.pointAt(x, y);
    if (point) marks.move(point);
  },
  measureEnd: (cancelled) => {
    cancelled ? marks.cancel() : marks.end();
    reading.slab.setMeasuring(isMeasuring());
  },
});

export function wireTools(reading, marks, planes) {
  keyMeasure = new KeyMeasure(reading, marks, () => (isMeasuring() ? tool : null));
  wireWindows(reading);
  wireSlab(reading.slab);
  for (const button of document.querySelectorAll("[data-preset]")) {
    button.addEventListener("click", () => reading.setWindow(PRESETS[Number(button.dataset.preset) - 1]));
  }
  for (const name of TOOLS) {
    find(`#tool-${name}`).addEventListener("click", ({ detail }) => {
      choose(reading, name);
      if (detail === 0) keyMeasure.focus(); // not clicked: by key, or by a program that reads the page
    });
  }
  wireHeat(reading);
  wirePlanes(planes, reading, isMeasuring);
  find("#zoom-in").addEventListener("click", () => reading.zoom(1.25));
  find("#zoom-out").addEventListener("click", () => reading.zoom(0.8));
  find("#reset").addEventListener("click", () => reading.reset());
  wireGestures(
    find("#stage"),
    {
      scroll: (steps) => reading.scroll(steps),
      windowStart: () => reading.windowStart(),
      windowBy: (dx, dy) => reading.windowBy(dx, dy),
      pan: (dx, dy) => reading.pan(dx, dy),
      zoom: (factor, x, y) => reading.zoom(factor, x, y),
      hover: (x, y) => {
        reading.hover(x, y);
        nearby(marks, x, y);
      },
      leave: () => {
        reading.hover();
        marks.near();
      },
      reset: () => reading.reset(),
      ...measuring(reading, marks),
    },
    chosenTool,
  );
  showTool();
}

/** The keys of the reading page; `page` has planes(), neighbour(step), walk(step), worklist() and more keys. */
export function readingKeys(reading, marks, page) {
  const preset = (one) => ({ keys: [one.key], shown: [one.key], does: t("keys.window", { name: presetName(one) }), act: () => reading.setWindow(one) });
  return [
    { keys: ["ArrowUp", "ArrowRight"], shown: ["↑"], does: t("keys.slice-up"), act: () => reading.scroll(1) },
    { keys: ["ArrowDown", "ArrowLeft"], shown: ["↓"], does: t("keys.slice-down"), act: () => reading.scroll(-1) },
    { keys: ["PageUp"], shown: ["PgUp"], does: t("keys.slices-up", { count: PAGE }), act: () => reading.scroll(PAGE) },
    { keys: ["PageDown"], shown: ["PgDn"], does: t("keys.slices-down", { count: PAGE }), act: () => reading.scroll(-PAGE) },
    { keys: ["Home"], shown: ["Home"], does: t("keys.first-slice"), act: () => reading.goTo(0) },
    { keys: ["End"], shown: ["End"], does: t("keys.last-slice"), act: () => reading.goTo(Infinity) },
    ...PRESETS.map(preset),
    ...heatKeys(reading),
    { keys: ["+", "="], shown: ["+"], does: t("keys.zoom-in"), act: () => reading.zoom(1.25, ...reading.pointer) },
    { keys: ["-"], shown: ["−"], does: t("keys.zoom-out"), act: () => reading.zoom(0.8, ...reading.pointer) },
    { keys: ["i"], shown: ["i"], does: t("keys.invert"), act: () => reading.setInverted(!reading.inverted) },
    ...[["l", "length"], ["e", "ellipse"], ["b", "rectangle"], ["c", "probe"]].map(([key, name]) => ({
      keys: [key],
      shown: [key],
      does: t(`keys.${name}`),
      act: () => find(`#tool-${name}`).disabled || choose(reading, name),
    })),
    { keys: ["Enter"], shown: ["Enter"], does: t("keys.measure-point"), act: () => keyMeasure.focus() },
    { keys: [], shown: ["↑", "↓", "←", "→"], does: t("keys.measure-move") },
    { keys: [], shown: ["Space"], does: t("keys.measure-take") },
    { keys: [], shown: ["Esc"], does: t("keys.measure-cancel") },
    ...slabKeys(reading.slab),
    { keys: ["m"], shown: ["m"], does: t("keys.planes"), act: () => page.planes() },
    { keys: ["Delete", "Backspace"], shown: ["Del"], does: t("keys.remove-measurement"), act: (event) => event.repeat || marks.removeLast() },
    { keys: [], command: "z", shown: ["Ctrl", "z"], does: t("keys.undo"), act: (event) => event.repeat || marks.undo() },
    { keys: ["r"], shown: ["r"], does: t("keys.reset"), act: () => reading.reset() },
    { keys: ["n"], shown: ["n"], does: t("keys.next-finding"), act: () => page.walk(1) },
    { keys: ["p"], shown: ["p"], does: t("keys.previous-finding"), act: () => page.walk(-1) },
    ...page.more,
    { keys: ["j"], shown: ["j"], does: t("keys.next-study"), act: () => page.neighbour(1) },
    { keys: ["k"], shown: ["k"], does: t("keys.previous-study"), act: () => page.neighbour(-1) },
    { keys: ["w"], shown: ["w"], does: t("keys.worklist"), act: () => page.worklist() },
    { keys: ["?"], shown: ["?"], does: t("keys.help"), act: () => find("#help").showModal() },
  ];
}
