// Slabs: the average or the maximum of the slices within some millimetres, for series so thin that a slice is mostly noise.
// Thickness is by the positions of the slices, never by their count. Pure functions of plain values.

import { t } from "./messages.js";

export const MODES = Object.freeze(["off", "average", "mip"]);
export const LEAST_MM = 1;
export const MOST_MM = 20;
const THIN_MM = 2; // thinner slices open as a slab
const FIRST_MM = 5;
const LEAST_SHARE_MM = 1e-3; // less is rounding of the positions

/** Millimetres from slice to slice, if they were measured; else null, and no slab can be given in mm. */
export function stepOf({ spacing_mm: [step], positions_mm: positions, assumed }) {
  const known = !assumed && step > 0 && positions?.length > 0 && positions.every(Number.isFinite);
  return known ? step : null;
}

/** How a series opens: thin ones as an average. */
export function firstSlab(step) {
  return { mode: step !== null && step < THIN_MM ? "average" : "off", mm: FIRST_MM };
}

export const isThin = (step) => firstSlab(step).mode !== "off";

/** A thickness as typed or stepped: whole millimetres within the limits, or null. */
export function typedThickness(value) {
  const given = Math.round(Number(value));
  return value !== "" && Number.isFinite(given) ? Math.min(Math.max(given, LEAST_MM), MOST_MM) : null;
}

/**
 * The slices of a slab of `mm` about slice `index`, nearest first: [{index, mm}] with the millimetres that each gives to it.
 * A slice reaches half way to its neighbours, and no further than half a `step`: a gap in the series stays empty.
 */
export function slabAt(positions, step, index, mm) {
  const rising = positions.at(-1) >= positions[0] ? 1 : -1;
  const reach = (at, other) => (other in positions ? Math.min(Math.abs(positions[other] - positions[at]), step) : step) / 2;
  const [bottom, top] = [positions[index] - mm / 2, positions[index] + mm / 2];
  const shares = positions.map((position, at) => {
    const [low, high] = [position - reach(at, at - rising), position + reach(at, at + rising)];
    return { index: at, mm: Math.min(high, top) - Math.max(low, bottom) };
  });
  const away = (member) => Math.abs(positions[member.index] - positions[index]);
  return shares.filter((member) => member.mm > LEAST_SHARE_MM).sort((a, b) => away(a) - away(b));
}

/** "5 mm average"; at the ends of a series and beside gaps what there is: "2.8 mm MIP". */
export function slabName(mode, members) {
  const mm = members.reduce((sum, member) => sum + member.mm, 0);
  return t(`slab.name-${mode}`, { mm: Number(mm.toFixed(1)) });
}
