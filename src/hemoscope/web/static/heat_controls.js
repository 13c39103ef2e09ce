// The heat map's controls: on and off, opacity, threshold and outline, and the scale that says what is shown.

import { scaleStops } from "./colours.js";
import { find } from "./element.js";
import { t } from "./messages.js";
import { remembered } from "./storage.js";

const HEAT_CHOICE = "hemoscope.heat";
const LEAST = 0.1; // the lowest threshold: what lies below is never shown
const FAINT = 0.3; // colours below are hard to see over a slice

function drawHeatScale() {
  const canvas = find("#heat-colours");
  const context = canvas.getContext("2d");
  const gradient = context.createLinearGradient(0, canvas.height, 0, 0);
  const stops = scaleStops();
  stops.forEach((colour, place) => gradient.addColorStop(place / (stops.length - 1), `rgb(${colour.join(" ")})`));
  context.fillStyle = gradient;
  context.fillRect(0, 0, canvas.width, canvas.height);
}

/** Heat on or off by the reader's last choice; before the first choice, on if something is suspected. */
export function firstHeat(suspected) {
  const choice = remembered.get(HEAT_CHOICE);
  return choice ? choice === "on" : suspected;
}

function toggleHeat(reading) {
  reading.setHeat(!reading.heatOn);
  remembered.set(HEAT_CHOICE, reading.heatOn ? "on" : "off");
}

function slider(id, act) {
  find(id).addEventListener("input", (event) => act(Number(event.target.value)));
  find(id).addEventListener("pointerup", (event) => event.target.blur()); // the arrows scroll slices again
}

export function wireHeat(reading) {
  find("#heat").addEventListener("click", () => toggleHeat(reading));
  find("#outline").addEventListener("click", () => reading.setHeatStyle({ outline: !reading.heatStyle.outline }));
  slider("#opacity", (value) => reading.setOpacity(value));
  slider("#threshold", (value) => reading.setHeatStyle({ threshold: value }));
  reading.setHeatStyle({});
  drawHeatScale();
}

/** Say what is drawn: nothing may be taken for "no heat" that a threshold hides. */
export function showHeatStyle({ threshold, outline }) {
  find("#outline").setAttribute("aria-pressed", outline);
  find("#threshold").value = threshold;
  find("#threshold").setAttribute("aria-valuetext", t("heat.from", { threshold: threshold.toFixed(2) }));
  find("#heat-from").textContent = t(outline ? "heat.outline-at" : "heat.from", { threshold: threshold.toFixed(2) });
}

/** Why no heat is seen, or hardly any; "" if it is seen, off or on its way. */
function unseenWords({ heatOn, viewer, heat, index, label, heatStyle: { threshold, outline } }) {
  if (!heatOn || !viewer) return "";
  if (heat?.hasFailed(index, label)) return t("heat.failed");
  const peak = viewer.heatPeak;
  if (peak === null) return "";
  if (viewer.heatIsEmpty) return peak < LEAST ? t("heat.nothing") : t("heat.nothing-from", { threshold: threshold.toFixed(2), peak: peak.toFixed(2) });
  return peak < FAINT && !outline ? t("heat.faint", { peak: peak.toFixed(2) }) : "";
}

/** A map that shows nothing on a slice is not a map that is off or on its way. */
export function showIfEmpty(reading) {
  const words = unseenWords(reading);
  find("#heat-none").textContent = words;
  find("#heat-none").hidden = !words;
}

/** A threshold in steps of 0.05 within its limits. */
export const steppedThreshold = (value) => Math.min(Math.max(Math.round(value * 20) / 20, LEAST), 0.95);

/** The heat map's keys, for the page's table. */
export function heatKeys(reading) {
  const threshold = (step) => reading.setHeatStyle({ threshold: reading.heatStyle.threshold + step });
  return [
    { keys: ["h"], shown: ["h"], does: t("keys.heat"), act: () => toggleHeat(reading) },
    { keys: ["["], shown: ["["], does: t("keys.heat-fainter"), act: () => reading.setOpacity(reading.opacity - 0.1) },
    { keys: ["]"], shown: ["]"], does: t("keys.heat-stronger"), act: () => reading.setOpacity(reading.opacity + 0.1) },
    { keys: ["o"], shown: ["o"], does: t("keys.heat-outline"), act: () => reading.setHeatStyle({ outline: !reading.heatStyle.outline }) },
    { keys: ["{"], shown: ["{"], does: t("keys.heat-lower"), act: () => threshold(-0.05) },
    { keys: ["}"], shown: ["}"], does: t("keys.heat-higher"), act: () => threshold(0.05) },
  ];
}
