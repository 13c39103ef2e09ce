// Coronal and sagittal planes beside the axial stack, with a cross-hair that links all three. The slices are fetched
// outwards from the one on screen and cut in a worker; the planes are drawn as they come.

import { Problem, slicePixels } from "./api.js";
import { drawCrossHair } from "./cross_hair.js";
import { el } from "./element.js";
import { t } from "./messages.js";
import { Plane } from "./plane_view.js";
import { PLANES, placeOf, pointOf, volumeOf } from "./reformat.js";
import { prefetchOrder } from "./stack.js";

const find = (selector) => document.querySelector(selector);
const PARALLEL = 4;

export class Planes {
  #studyId;
  #reading;
  #volume = null;
  #worker = null;
  #aborts = null;
  #place = null; // row and column of the cross-hair on the slice
  #views = [];
  #come = 0;

  constructor(studyId, reading) {
    this.#studyId = studyId;
    this.#reading = reading;
    reading.crossHair = (context, place, image) => this.#drawOnSlice(context, place, image);
    reading.whenShown(() => this.#shown());
  }

  /** Planes are refused where the slices' places were not measured. */
  allow(geometry) {
    this.#volume = volumeOf(geometry);
    find("#planes-button").disabled = this.#volume === null;
    if (!this.#volume) find("#planes-button").title = t("planes.not-possible");
  }

  get isOpen() {
    return this.#worker !== null;
  }

  toggle() {
    if (!this.#volume) return;
    if (this.isOpen) this.#close();
    else this.#open();
    find("#planes").hidden = !this.isOpen;
    find("#planes-button").setAttribute("aria-pressed", this.isOpen);
    this.#reading.redraw();
  }

  #open() {
    this.#place ??= { row: Math.floor(this.#volume.rows / 2) + 0.5, column: Math.floor(this.#volume.columns / 2) + 0.5 }; // the middle of a pixel
    this.#worker = new Worker(new URL("./planes_worker.js", import.meta.url), { type: "module" });
    this.#views = Object.keys(PLANES).map((name) => new Plane(name, this.#volume, { ask: (point) => this.#worker?.postMessage({ plane: name, point }), onPoint: (point) => this.#goTo(point) }));
    find("#planes").replaceChildren(...this.#views.map((view) => view.node), el("p", { id: "planes-state", class: "planes-state" }));
    this.#worker.addEventListener("message", ({ data }) => this.#views.find((view) => view.name === data.plane)?.arrived(data));
    this.#worker.postMessage({ volume: this.#volume });
    this.#come = 0;
    this.#aborts = new AbortController();
    this.#fetchAll();
    this.#shown();
  }

  #close() {
    this.#aborts.abort();
    this.#worker.terminate();
    this.#worker = null;
    for (const view of this.#views) view.close();
    this.#views = [];
  }

  async #fetchAll() {
    const { signal } = this.#aborts;
    const count = this.#volume.positions.length;
    const waiting = prefetchOrder(this.#reading.index, count, 1, { ahead: count, behind: count });
    this.#say(t("planes.come", { come: 0, total: count }));
    const fetchNext = async () => {
      for (let index = waiting.shift(); index !== undefined && !signal.aborted; index = waiting.shift()) {
        const { hounsfield } = await slicePixels(this.#studyId, index, signal);
        this.#took(index, hounsfield);
      }
    };
    try {
      await Promise.all(Array.from({ length: PARALLEL }, fetchNext));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.#aborts.abort();
      this.#say(t("planes.failed", { reason: error.message }));
    }
  }

  #took(index, hounsfield) {
    if (!this.isOpen) return;
    this.#worker.postMessage({ index, hounsfield }, [hounsfield.buffer]);
    this.#come += 1;
    const count = this.#volume.positions.length;
    this.#say(this.#come < count ? t("planes.come", { come: this.#come, total: count }) : "");
    for (const view of this.#views) view.refresh();
  }

  #say(text) {
    find("#planes-state").textContent = text;
    find("#planes").dataset.come = this.#come;
  }

  /** The slice, its window or the cross-hair has changed. */
  #shown() {
    if (!this.isOpen) return;
    const point = pointOf(this.#volume, { index: this.#reading.index, ...this.#place });
    for (const view of this.#views) view.show(point, this.#reading);
  }

  /** Put the cross-hair on a place {row, column} of the slice shown. */
  mark({ row, column }) {
    if (!this.isOpen) return;
    this.#place = { row, column };
    this.#shown();
    this.#reading.redraw();
  }

  #goTo(point) {
    const { index, row, column } = placeOf(this.#volume, point);
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    this.#place = { row: within(row, this.#volume.rows), column: within(column, this.#volume.columns) };
    this.#reading.goTo(index);
    this.#reading.redraw();
  }

  #drawOnSlice(context, place, image) {
    if (!this.isOpen) return;
    const [x, y] = [place.left + (this.#place.column / image.columns) * place.width, place.top + (this.#place.row / image.rows) * place.height];
    drawCrossHair(context, { x, y }, { width: context.canvas.clientWidth, height: context.canvas.clientHeight });
  }
}

/** The button, and clicks on the slice that place the cross-hair; drags keep their tools. */
export function wirePlanes(planes, reading, isMeasuring) {
  find("#planes-button").addEventListener("click", () => planes.toggle());
  const stage = find("#stage");
  let from = null;
  stage.addEventListener("pointerdown", ({ clientX, clientY, button }) => {
    from = button === 0 ? [clientX, clientY] : null;
  });
  stage.addEventListener("click", ({ clientX, clientY }) => {
    if (!from || isMeasuring() || Math.hypot(clientX - from[0], clientY - from[1]) > 3) return;
    const { left, top } = stage.getBoundingClientRect();
    const point = reading.viewer?.pointAt(clientX - left, clientY - top);
    if (point) planes.mark(point);
  });
}
