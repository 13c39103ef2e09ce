// Coronal and sagittal planes beside the axial stack, with a cross-hair that links all three. A worker fetches the slices,
// a few of them first, and cuts the planes, which are drawn as soon as they show the head and again as more slices come.

import { drawCrossHair } from "./cross_hair.js";
import { el, find } from "./element.js";
import { messages, t } from "./messages.js";
import { Plane } from "./plane_view.js";
import { PLANES, placeOf, pointOf, volumeOf } from "./reformat.js";

export class Planes {
  #studyId;
  #reading;
  #volume = null;
  #worker = null;
  #open = false;
  #place = null; // row and column of the cross-hair on the slice
  #views = [];
  #come = 0;
  #trouble = ""; // of this fetch: what comes after it must not hide it
  #asked = 0;
  #ids = {}; // of the plane that each view waits for

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

  toggle() {
    if (!this.#volume) return;
    this.#open = !this.#open;
    if (this.#open) this.#begin();
    else this.#close();
    find("#planes").hidden = !this.#open;
    find("#planes-button").setAttribute("aria-pressed", this.#open);
    this.#reading.redraw();
  }

  #begin() {
    this.#place ??= { row: Math.floor(this.#volume.rows / 2) + 0.5, column: Math.floor(this.#volume.columns / 2) + 0.5 }; // the middle of a pixel
    this.#views = Object.keys(PLANES).map((name) => this.#planeOf(name));
    find("#planes").replaceChildren(...this.#views.map((view) => view.node), el("p", { id: "planes-state", class: "planes-state" }));
    if (!this.#worker) this.#fetch();
    this.#say();
    this.#shown();
  }

  #planeOf(name) {
    return new Plane(name, this.#volume, {
      ready: () => this.#come > 0,
      ask: (point) => this.#ask(name, point),
      onPoint: (point) => this.#goTo(point),
      onStep: (axis, steps) => this.#step(axis, steps),
    });
  }

  #ask(plane, point) {
    this.#asked += 1;
    this.#ids[plane] = this.#asked;
    this.#worker.postMessage({ plane, point, id: this.#asked });
  }

  #fetch() {
    [this.#come, this.#trouble] = [0, ""];
    this.#worker = new Worker(new URL("./planes_worker.js", import.meta.url), { type: "module" });
    this.#worker.addEventListener("message", ({ data }) => this.#answered(data));
    this.#worker.addEventListener("error", () => this.#fail(t("planes.stopped")));
    this.#worker.postMessage({ studyId: this.#studyId, volume: this.#volume, messages: messages() });
  }

  #fail(reason) {
    this.#trouble = t("planes.failed", { reason });
    this.#say();
  }

  #answered({ come, problem, plane, id, ...cut }) {
    if (plane && id === this.#ids[plane]) this.#views.find((view) => view.name === plane)?.arrived(cut); // not one that was closed since
    if (problem) this.#fail(problem);
    if (!come) return;
    this.#come = come;
    this.#say();
    for (const view of this.#views) view.refresh();
  }

  /** The slices stay for the next time if all have come. */
  #close() {
    for (const view of this.#views) view.close();
    [this.#views, this.#ids] = [[], {}];
    if (this.#come === this.#volume.positions.length && !this.#trouble) return;
    this.#worker.terminate();
    this.#worker = null;
  }

  #say() {
    if (!this.#open) return;
    const count = this.#volume.positions.length;
    const missing = this.#come < count ? t("planes.come", { come: this.#come, total: count }) : "";
    find("#planes-state").textContent = this.#trouble || missing;
    find("#planes").dataset.come = this.#come;
  }

  #point() {
    return pointOf(this.#volume, { index: this.#reading.index, ...this.#place });
  }

  /** The slice, its window or the cross-hair has changed. */
  #shown() {
    if (!this.#open) return;
    const point = this.#point();
    for (const view of this.#views) view.show(point, this.#reading);
  }

  /** Put the cross-hair on a place {row, column} of the slice shown. */
  mark({ row, column }) {
    if (!this.#open) return;
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

  /** Move the cross-hair along an axis of the patient: by slices where the stack runs that way, else by pixels. */
  #step(axis, steps) {
    const { normal, rowMm, columnMm, low, high } = this.#volume;
    if (Math.abs(normal[axis]) > 0.5) return this.#reading.scroll(Math.sign(normal[axis]) * steps);
    const point = this.#point();
    point[axis] = Math.min(Math.max(point[axis] + steps * Math.min(rowMm, columnMm), low[axis]), high[axis]);
    this.#goTo(point);
  }

  #drawOnSlice(context, place, image) {
    if (!this.#open) return;
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
