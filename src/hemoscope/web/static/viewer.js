// The slice on its canvas: HU through a look-up table, the heat map over it, zoom and pan. A new slice is drawn
// at once when it has arrived, so the picture never flickers; `canvas.dataset.rendered` is the slice on screen.

import { HeatLayer } from "./heat_layer.js";
import { sheetOf } from "./sheet.js";
import { FITTED, pixelAt, placement } from "./view.js";
import { paint, pixelTable } from "./window.js";

const SMOOTH_UP_TO = 6; // screen pixels a pixel; beyond, pixels are shown as they are
const REST_MS = 150; // without a change, after which the picture is drawn at its best

export class Viewer {
  #canvas;
  #context;
  #stage = { width: 1, height: 1 };
  #slice = null; // {index, hounsfield, rows, columns}
  #pixels = null; // the HU that are painted
  #sheet = null; // the windowed slice
  #heat = new HeatLayer();
  #table = null;
  #pending = false;
  #drawnAt = -Infinity;
  #resting = 0;

  view = FITTED;
  overlay = () => {}; // (context, place, image): draws over the slice, in CSS pixels of the stage

  /** `shape` is {rowSize, columnSize}; `onDrawn(place)` may lay marks over the slice. */
  constructor(canvas, { shape, onDrawn }) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    this.shape = shape;
    this.onDrawn = onDrawn;
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#followDensity();
    // A browser may lose a canvas' memory, as when its graphics process crashes: the slice must not stay black.
    canvas.addEventListener("contextrestored", () => {
      this.#sheet = null;
      this.#paint();
    });
  }

  get stage() {
    return this.#stage;
  }

  get image() {
    const { rows = 512, columns = 512 } = this.#slice ?? {};
    return { rows, columns, ...this.shape };
  }

  /** Where the slice lies on the stage, as view.js has it. */
  get place() {
    return placement(this.view, this.#stage, this.image);
  }

  /** The slice on screen: {index, hounsfield, rows, columns}, or null. */
  get slice() {
    return this.#slice;
  }

  /** The point {row, column, x, y} of the slice under a point of the stage, between pixels too; null outside the slice. */
  pointAt(x, y) {
    if (!this.#slice || !pixelAt(this.view, this.#stage, this.image, x, y)) return null;
    const { left, top, width, height } = this.place;
    const { rows, columns } = this.image;
    return { row: ((y - top) / height) * rows, column: ((x - left) / width) * columns, x, y };
  }

  setWindow({ center, width }, inverted = false) {
    this.#table = pixelTable(center, width, inverted);
    this.#paint();
  }

  /** Show a slice, painted as `pixels` (a slab's HU) if they are given; probing reads the slice itself. */
  show(index, slice, pixels = null) {
    this.#slice = { index, ...slice };
    this.#pixels = pixels ?? slice.hounsfield;
    this.#paint();
  }

  /** Lay a heat map (bytes of `shape` rows and columns) over `box`, or remove it with null. */
  setHeat(heat) {
    this.#heat.set(heat);
    this.draw();
  }

  /** Draw the heat map from a threshold on, filled at an opacity or as an outline; at opacity 0 not at all. */
  setHeatStyle({ opacity, threshold, outline }) {
    this.#heat.opacity = opacity;
    this.#heat.setStyle({ threshold, outline });
    this.draw();
  }

  /** Whether a heat map lies over the slice that shows nothing at its threshold. */
  get heatIsEmpty() {
    return this.#heat.isEmpty;
  }

  /** The highest local probability of the heat map over the slice, 0 to 1; null without a map. */
  get heatPeak() {
    return this.#heat.peak;
  }

  hounsfieldAt(x, y) {
    if (!this.#slice) return null;
    const pixel = pixelAt(this.view, this.#stage, this.image, x, y);
    return pixel && { ...pixel, hounsfield: this.#slice.hounsfield[pixel.row * this.#slice.columns + pixel.column] };
  }

  /** Draw before the browser's next frame, however many changes ask for it. */
  draw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      this.#drawNow();
    });
  }

  /** Draw again when the window moves to a screen of other density, or the page is zoomed: each change ends its query. */
  #followDensity() {
    const query = matchMedia(`(resolution: ${window.devicePixelRatio || 1}dppx)`);
    const changed = () => {
      this.#resize();
      this.#followDensity();
    };
    query.addEventListener("change", changed, { once: true });
  }

  #resize() {
    const { width, height } = this.#canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    this.#stage = { width, height };
    Object.assign(this.#canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    this.#drawNow(); // setting the size has blanked the canvas
  }

  #paint() {
    if (!this.#slice || !this.#table) return;
    const { rows, columns } = this.#slice;
    const fits = this.#sheet?.canvas.width === columns && this.#sheet.canvas.height === rows;
    if (!fits) this.#sheet = sheetOf(columns, rows);
    paint(this.#pixels, this.#table, this.#sheet.pixels);
    this.#sheet.context.putImageData(this.#sheet.image, 0, 0);
    this.draw();
  }

  /** The best interpolation costs most of a frame: while the picture moves, a plain one must do, and is drawn again at rest. */
  #quality(pixelsPerPixel) {
    const now = performance.now();
    const moves = now - this.#drawnAt < REST_MS;
    this.#drawnAt = now;
    clearTimeout(this.#resting);
    if (moves) this.#resting = setTimeout(() => this.draw(), REST_MS);
    this.#canvas.dataset.quality = moves ? "plain" : "best";
    if (!moves) return "high";
    return pixelsPerPixel >= 1 ? "low" : "medium"; // smaller than stored, "low" would leave pixels out
  }

  #drawNow() {
    const context = this.#context;
    const ratio = this.#canvas.width / Math.max(this.#stage.width, 1);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.#stage.width, this.#stage.height);
    const { place } = this;
    if (this.#sheet) {
      context.imageSmoothingEnabled = place.scale * this.shape.columnSize * ratio < SMOOTH_UP_TO;
      context.imageSmoothingQuality = this.#quality(place.scale * this.shape.columnSize * ratio);
      context.drawImage(this.#sheet.canvas, place.left, place.top, place.width, place.height);
      this.#heat.draw(context, place, this.#slice);
      this.#canvas.dataset.rendered = this.#slice.index;
    }
    this.onDrawn(place);
    if (this.#slice) this.overlay(context, place, this.image);
  }
}
