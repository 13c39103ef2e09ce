// The heat map over its slice: filled from a threshold on, or as the outline of what reaches it.

import { heatTable } from "./colours.js";
import { contour } from "./contour.js";
import { sheetOf } from "./sheet.js";

const COLOURS = heatTable();
const INK = "#ffd84d";
const SHADOW = "rgb(0 0 0 / 85%)";

export class HeatLayer {
  #heat = null; // {bytes, shape, box}
  #sheet = null;
  #lines = null;
  opacity = 0;
  threshold = 0;
  outline = false;

  /** Lay a heat map (bytes of `shape` rows and columns) over `box`, or remove it with null. */
  set(heat) {
    this.#heat = heat;
    this.#sheet = null;
    this.#lines = null;
  }

  setStyle({ threshold, outline }) {
    Object.assign(this, { threshold, outline });
    this.set(this.#heat);
  }

  /** Whether a map lies over the slice that nowhere reaches the threshold; false without a map. */
  get isEmpty() {
    return Boolean(this.#heat) && this.#heat.bytes.every((byte) => byte < this.#level);
  }

  /** The highest local probability on the slice, 0 to 1; null without a map. */
  get peak() {
    return this.#heat && this.#heat.bytes.reduce((most, byte) => Math.max(most, byte), 0) / 255;
  }

  get #level() {
    return Math.max(Math.round(this.threshold * 255), 1);
  }

  #filled() {
    const { bytes, shape: [rows, columns] } = this.#heat;
    const sheet = sheetOf(columns, rows);
    for (let place = 0; place < bytes.length; place += 1) sheet.pixels[place] = bytes[place] >= this.#level ? COLOURS[bytes[place]] : 0;
    sheet.context.putImageData(sheet.image, 0, 0);
    return sheet;
  }

  /** Draw over a slice of (rows, columns) that lies at `place` on the stage. */
  draw(context, place, slice) {
    if (!this.#heat || this.opacity <= 0) return;
    const { box, shape } = this.#heat;
    const [x, y] = [place.width / slice.columns, place.height / slice.rows];
    const at = { left: place.left + box.left * x, top: place.top + box.top * y, width: (box.width ?? box.side) * x, height: box.side * y };
    context.save();
    context.beginPath();
    context.rect(place.left, place.top, place.width, place.height);
    context.clip(); // a box may extend beyond the slice
    if (this.outline) this.#stroke(context, at, shape);
    else this.#fill(context, at);
    context.restore();
  }

  #fill(context, { left, top, width, height }) {
    this.#sheet ??= this.#filled();
    Object.assign(context, { globalAlpha: this.opacity, imageSmoothingEnabled: true });
    context.drawImage(this.#sheet.canvas, left, top, width, height);
  }

  #stroke(context, { left, top, width, height }, [rows, columns]) {
    this.#lines ??= contour(this.#heat.bytes, rows, columns, this.#level);
    const [x, y] = [width / columns, height / rows];
    context.beginPath();
    for (const [fromX, fromY, toX, toY] of this.#lines) {
      context.moveTo(left + fromX * x, top + fromY * y);
      context.lineTo(left + toX * x, top + toY * y);
    }
    for (const [strokeStyle, lineWidth] of [[SHADOW, 4], [INK, 1.5]]) {
      Object.assign(context, { strokeStyle, lineWidth, lineCap: "round" });
      context.stroke();
    }
  }
}
