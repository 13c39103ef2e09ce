// Display windows: Hounsfield units to grey by a look-up table, the same arithmetic as hemoscope/windows.py.
// Every step is rounded to float32 as NumPy does it, so that page, reports and overlays show the same grey.

import { t } from "./messages.js";

const OFFSET = 32768; // of HU -32768, the lowest int16, in a table

// The three windows of Lewicki et al. 2020, section IV-A, under the keys that choose them.
export const PRESETS = Object.freeze([
  Object.freeze({ key: "1", name: "brain", center: 40, width: 80 }),
  Object.freeze({ key: "2", name: "subdural", center: 80, width: 200 }),
  Object.freeze({ key: "3", name: "bone", center: 600, width: 2800 }),
  // Of every viewer: narrow for early ischemia, wide for extra-axial blood, and the orbit's and neck's soft tissue.
  Object.freeze({ key: "4", name: "stroke", center: 35, width: 35 }),
  Object.freeze({ key: "5", name: "wide", center: 50, width: 130 }),
  Object.freeze({ key: "6", name: "soft-tissue", center: 50, width: 400 }),
  Object.freeze({ key: "7", name: "temporal-bone", center: 700, width: 4000 }),
]);

const NARROWEST = 2;
const WIDEST = 6000;
const float32 = Math.fround;

/** Round to the nearest whole number, halves to the even one, as NumPy does. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Grey 0 to 255 of every int16 HU; the entry of HU h is at h + 32768. */
export function greyTable(center, width) {
  const low = float32(center - width / 2);
  const high = float32(center + width / 2);
  const range = float32(high - low);
  const table = new Uint8Array(65536);
  for (let index = 0; index < table.length; index += 1) {
    const clipped = Math.min(Math.max(index - OFFSET, low), high);
    const share = float32(float32(clipped - low) / range);
    table[index] = roundHalfEven(float32(share * 255));
  }
  return table;
}

/** Opaque grey pixels as ImageData holds them (little endian: alpha is the highest byte), indexed as greyTable. */
export function pixelTable(center, width, inverted = false) {
  const shown = inverted ? (grey) => 255 - grey : (grey) => grey;
  return Uint32Array.from(greyTable(center, width), (grey) => (0xff000000 | (shown(grey) * 0x010101)) >>> 0);
}

/** Paint HU (Int16Array) into RGBA pixels (Uint32Array of the same length). */
export function paint(hounsfield, table, pixels) {
  for (let index = 0; index < pixels.length; index += 1) pixels[index] = table[hounsfield[index] + OFFSET];
}

/** The window after a drag of (dx, dy) screen pixels: right is wider, down is a higher level, finer when narrow. */
export function draggedWindow(start, dx, dy) {
  const step = Math.max(start.width / 300, 0.25);
  const width = Math.min(Math.max(Math.round(start.width + dx * step), NARROWEST), WIDEST);
  const center = Math.min(Math.max(Math.round(start.center + dy * step), -2000), 4000);
  return { center, width };
}

/** A window as typed: whole numbers within the limits, or null. */
export function typedWindow(center, width) {
  const given = { center: Number(center), width: Number(width) };
  const fits = Number.isFinite(given.center) && Math.abs(given.center) <= 4000 && given.width >= NARROWEST && given.width <= WIDEST;
  return center !== "" && width !== "" && fits ? { center: Math.round(given.center), width: Math.round(given.width) } : null;
}

/** The preset of exactly this window, or undefined. */
export const presetOf = ({ center, width }) => PRESETS.find((preset) => preset.center === center && preset.width === width);

/** The name of a preset, "Custom" without one. */
export const presetName = (preset) => t(`window.${preset?.name ?? "custom"}`);

/** "Brain  L 40  W 80": a window as the corner of a stage shows it. */
export function windowWords({ center, width }, inverted = false) {
  const shown = { name: presetName(presetOf({ center, width })), level: center, width };
  return t(inverted ? "window.shown-inverted" : "window.shown", shown);
}
