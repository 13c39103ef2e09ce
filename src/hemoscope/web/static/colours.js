// The colours of heat maps, the same as hemoscope/reports/colours.py: transparent below 0.08, then increasingly opaque.

// Nine anchors of the "inferno" map (van der Walt and Smith, CC0), evenly spaced from 0 to 1.
const ANCHORS = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
];
const FAINT = 0.08;
const STRONG = 0.6;
const MOST = 0.8;

/** Red, green and blue (0 to 255) of a value in 0 to 1. */
export function heatColour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (ANCHORS.length - 1);
  const lower = Math.min(Math.floor(place), ANCHORS.length - 2);
  const share = place - lower;
  return ANCHORS[lower].map((low, channel) => low + share * (ANCHORS[lower + 1][channel] - low));
}

/** The opacity, 0 to 0.8, of a value in 0 to 1. */
export function heatOpacity(value) {
  return MOST * Math.min(Math.max((value - FAINT) / (STRONG - FAINT), 0), 1);
}

/** RGBA pixels (ImageData's order, little endian) of every byte of a heat map, where 255 is probability 1. */
export function heatTable() {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    const [red, green, blue] = heatColour(byte / 255).map(Math.round);
    const alpha = Math.round(heatOpacity(byte / 255) * 255);
    return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}

/** The colours of the scale beside the slice, from 0 to 1, as CSS colours over black. */
export function scaleStops(count = 9) {
  return Array.from({ length: count }, (_, place) => {
    const value = place / (count - 1);
    return heatColour(value).map((channel) => Math.round(channel));
  });
}
