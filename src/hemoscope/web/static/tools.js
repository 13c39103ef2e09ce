// The controls of the stage: buttons, sliders, keys and gestures, all acting on one Reading.

import { wireGestures } from "./gestures.js";
import { heatKeys, wireHeat } from "./heat_controls.js";
import { wirePlanes } from "./planes.js";
import { slabKeys, wireSlab } from "./slab_view.js";
import { PRESETS, typedWindow } from "./window.js";

const find = (selector) => document.querySelector(selector);
const PAGE = 5;
const MEASURES = ["length", "ellipse", "rectangle", "probe"];
const TOOLS = ["window", "scroll", "pan", ...MEASURES];
let pointer = []; // [x, y] on the stage: keys zoom about it
let tool = null; // until one is chosen, a mouse windows and a finger scrolls

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
    if (button.disabled) button.title = "Not possible: the pixel spacing of this study is unknown or assumed";
  }
}

function choose(reading, name) {
  tool = tool === name && MEASURES.includes(name) ? null : name;
  reading.slab.setMeasuring(MEASURES.includes(tool));
  showTool();
}

function wireWindows(reading) {
  const more = find("#more-windows");
  more.append(...PRESETS.slice(3).map(({ name, key }) => new Option(`${name} (${key})`, key)));
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

const measuring = (reading, marks) => ({
  measures: (name) => MEASURES.includes(name),
  measureStart: (name, x, y) => {
    const point = reading.viewer?.pointAt(x, y);
    if (point && !find(`#tool-${name}`).disabled) marks.start(name, point);
  },
  measureMove: (x, y) => {
    const point = reading.viewer?.pointAt(x, y);
    if (point) marks.move(point);
  },
  measureEnd: (cancelled) => (cancelled ? marks.cancel() : marks.end()),
});

export function wireTools(reading, marks, planes) {
  wireWindows(reading);
  wireSlab(reading.slab);
  for (const button of document.querySelectorAll("[data-preset]")) {
    button.addEventListener("click", () => reading.setWindow(PRESETS[Number(button.dataset.preset) - 1]));
  }
  for (const name of TOOLS) {
    find(`#tool-${name}`).addEventListener("click", () => choose(reading, name));
  }
  wireHeat(reading);
  wirePlanes(planes, reading, () => MEASURES.includes(tool));
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
        pointer = [x, y];
        reading.hover(x, y);
      },
      leave: () => {
        pointer = [];
        reading.hover(-1, -1);
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
  const preset = ({ key, name }, place) => ({ keys: [key], shown: [key], does: `${name} window`, act: () => reading.setWindow(PRESETS[place]) });
  return [
    { keys: ["ArrowUp", "ArrowRight"], shown: ["↑"], does: "One slice towards the head", act: () => reading.scroll(1) },
    { keys: ["ArrowDown", "ArrowLeft"], shown: ["↓"], does: "One slice towards the feet", act: () => reading.scroll(-1) },
    { keys: ["PageUp"], shown: ["PgUp"], does: `${PAGE} slices up`, act: () => reading.scroll(PAGE) },
    { keys: ["PageDown"], shown: ["PgDn"], does: `${PAGE} slices down`, act: () => reading.scroll(-PAGE) },
    { keys: ["Home"], shown: ["Home"], does: "First slice", act: () => reading.goTo(0) },
    { keys: ["End"], shown: ["End"], does: "Last slice", act: () => reading.goTo(Infinity) },
    ...PRESETS.map(preset),
    ...heatKeys(reading),
    { keys: ["+", "="], shown: ["+"], does: "Zoom in, about the pointer", act: () => reading.zoom(1.25, ...pointer) },
    { keys: ["-"], shown: ["−"], does: "Zoom out", act: () => reading.zoom(0.8, ...pointer) },
    { keys: ["i"], shown: ["i"], does: "Invert grey", act: () => reading.setInverted(!reading.inverted) },
    ...[["l", "length", "Measure a length"], ["e", "ellipse", "Measure HU in an ellipse"], ["b", "rectangle", "Measure HU in a rectangle"], ["c", "probe", "Measure HU at a point"]].map(([key, name, does]) => ({
      keys: [key],
      shown: [key],
      does: `${does}, or stop measuring`,
      act: () => find(`#tool-${name}`).click(),
    })),
    ...slabKeys(reading.slab),
    { keys: ["m"], shown: ["m"], does: "Coronal and sagittal planes", act: () => page.planes() },
    { keys: ["Delete", "Backspace"], shown: ["Del"], does: "Delete the newest measurement on this slice", act: () => marks.removeLast() },
    { keys: ["r"], shown: ["r"], does: "Reset window, zoom and pan", act: () => reading.reset() },
    { keys: ["n"], shown: ["n"], does: "Next key slice of what is suspected", act: () => page.walk(1) },
    { keys: ["p"], shown: ["p"], does: "Previous key slice of what is suspected", act: () => page.walk(-1) },
    ...page.more,
    { keys: ["j"], shown: ["j"], does: "Next study", act: () => page.neighbour(1) },
    { keys: ["k"], shown: ["k"], does: "Previous study", act: () => page.neighbour(-1) },
    { keys: ["w"], shown: ["w"], does: "Back to the worklist", act: () => page.worklist() },
    { keys: ["?"], shown: ["?"], does: "This help", act: () => find("#help").showModal() },
  ];
}
