// Another series of the study beside the one that was read: linked by the table's position, with a window of its own. The
// model has not read it, so it has no findings and no heat map.

import { seriesPixels } from "./api.js";
import { el } from "./element.js";
import { shownGeometry } from "./geometry.js";
import { wireGestures } from "./gestures.js";
import { nearestSlice, reachOf, tablePositions } from "./linked.js";
import { t } from "./messages.js";
import { capacityFor, SliceStack } from "./stack.js";
import { panned, zoomedAt, FITTED } from "./view.js";
import { Viewer } from "./viewer.js";
import { draggedWindow, presetName, PRESETS, windowWords } from "./window.js";

const find = (selector) => document.querySelector(selector);
const BONE = PRESETS[2];
const firstWindow = (description) => (/kernel (?:[bh][6-9]\d|bone|edge|yc|fc[38])/i.test(description) ? BONE : PRESETS[0]);

/** The letters at the edges, where the orientation is known. */
const sides = (marks) => ["left", "right", "top", "bottom"].map((edge) => el("span", { class: `mark mark-${edge}`, text: marks?.[edge] ?? "" }));

export class Beside {
  #studyId;
  #reading;
  #series = [];
  #open = null; // the parts of the series that is shown

  constructor(studyId, reading) {
    this.#studyId = studyId;
    this.#reading = reading;
    reading.whenShown(() => this.#follow());
    find("#beside-choice").addEventListener("change", ({ target }) => {
      this.#show(Number(target.value));
      target.blur(); // the keys scroll slices again
    });
  }

  /** Offer the other series that the server keeps; they may come after the findings. */
  allow({ series = [] }) {
    if (series.length === this.#series.length) return;
    this.#series = series;
    const option = ({ number, description, geometry }) => el("option", { value: number, text: t("beside.option", { series: description, slices: t("count.slices", { count: geometry.slices }) }) });
    find("#beside-choice").replaceChildren(el("option", { value: 0, text: t("beside.none") }), ...series.map(option));
    find("#beside-group").hidden = series.length === 0;
  }

  /** The next of the other series, after the last one none. */
  next() {
    if (this.#series.length > 0) this.#show(((this.#open?.number ?? 0) + 1) % (this.#series.length + 1));
  }

  #show(number) {
    this.#close();
    const series = this.#series.find((one) => one.number === number);
    find("#beside-choice").value = series ? number : 0;
    find("#beside").hidden = !series;
    if (series) this.#begin(series);
    this.#reading.redraw();
  }

  #close() {
    this.#open?.stack.close();
    this.#open = null;
    find("#beside").replaceChildren();
  }

  #begin({ number, description, geometry }) {
    const shape = shownGeometry(geometry);
    const canvas = el("canvas", { role: "img", "aria-label": t("beside.series", { series: description }) });
    const [place, caution, name] = [el("p"), el("p", { class: "geometry-caution" }), el("p", { class: "corner corner-br" })];
    const preset = el("select", { "aria-label": t("beside.window-label") }, el("option", { value: "", text: t("window.custom") }), ...PRESETS.map((one) => el("option", { value: one.key, text: presetName(one) })));
    const corner = el("div", { class: "corner corner-tl" }, place, el("p", { text: description }), el("p", { class: "beside-unread", text: t("beside.unread") }), caution);
    const stage = el("div", { class: "beside-stage" }, canvas, corner, name, ...sides(shape.marks));
    find("#beside").replaceChildren(stage, el("div", { class: "beside-tools" }, el("label", {}, el("span", { text: t("beside.window") }), preset)));
    const stack = new SliceStack({
      count: geometry.slices,
      load: (index, signal) => seriesPixels(this.#studyId, number, index, signal),
      onLoaded: (index) => index === this.#open?.index && this.#draw(),
      onFailed: (index, error) => index === this.#open?.index && (caution.textContent = error.message),
      capacity: capacityFor(geometry.rows * geometry.columns * 2),
    });
    const mine = tablePositions(geometry);
    const read = tablePositions(this.#reading.geometry);
    const linked = mine && read ? { mine, read, reach: reachOf(mine) } : null;
    this.#open = { number, geometry, canvas, place, caution, name, preset, stack, linked, index: Math.floor(geometry.slices / 2), viewer: new Viewer(canvas, { shape, onDrawn: () => {} }) };
    preset.addEventListener("change", () => {
      this.#setWindow(PRESETS.find(({ key }) => key === preset.value) ?? this.#open.window);
      preset.blur();
    });
    this.#wire(stage);
    this.#setWindow(firstWindow(description));
    this.#follow();
  }

  #wire(stage) {
    const { viewer } = this.#open;
    const view = (next) => {
      viewer.view = next;
      viewer.draw();
    };
    let from = null;
    const nothing = () => {};
    const acts = {
      scroll: (steps) => this.#scroll(steps),
      windowStart: () => (from = this.#open.window),
      windowBy: (dx, dy) => this.#setWindow(draggedWindow(from, dx, dy)),
      pan: (dx, dy) => view(panned(viewer.view, viewer.stage, dx, dy)),
      zoom: (factor, x, y) => view(zoomedAt(viewer.view, viewer.stage, factor, x, y)),
      reset: () => view(FITTED),
      hover: nothing,
      leave: nothing,
      measures: () => false,
      measureEnd: nothing,
    };
    wireGestures(stage, acts, (pointer) => (pointer === "touch" ? "scroll" : "window"));
  }

  #setWindow({ center, width }) {
    const { viewer, name, preset, canvas } = this.#open;
    this.#open.window = { center, width };
    viewer.setWindow({ center, width });
    name.textContent = windowWords({ center, width });
    preset.value = PRESETS.find((one) => one.center === center && one.width === width)?.key ?? "";
    canvas.dataset.window = `${center}/${width}`;
  }

  /** The series that was read shows another slice: show the nearest one beside it. */
  #follow() {
    if (!this.#open || this.#open.leading) return;
    const { linked } = this.#open;
    const found = linked ? nearestSlice(linked.mine, linked.read[this.#reading.index]) : { index: this.#open.index, mm: 0 };
    this.#goTo(found.index);
    if (!linked) this.#open.caution.textContent = t("beside.not-linked");
    else this.#open.caution.textContent = found.mm > linked.reach ? t("beside.far", { mm: found.mm.toFixed(0) }) : "";
  }

  /** This series is scrolled: the one that was read follows it. */
  #scroll(steps) {
    const { linked, index, geometry } = this.#open;
    this.#goTo(Math.min(Math.max(index + steps, 0), geometry.slices - 1), Math.sign(steps));
    if (!linked) return;
    this.#open.caution.textContent = "";
    const other = nearestSlice(linked.read, linked.mine[this.#open.index]).index;
    this.#open.leading = true; // what follows must not lead
    if (other !== this.#reading.index) this.#reading.goTo(other);
    this.#open.leading = false;
  }

  #goTo(index, direction = Math.sign(index - this.#open.index) || 1) {
    const { stack, place, geometry, linked, canvas } = this.#open;
    this.#open.index = index;
    canvas.dataset.slice = index;
    stack.want(index, direction);
    place.textContent = t(linked ? "viewer.place-mm" : "viewer.place", { number: index + 1, total: geometry.slices, mm: linked?.mine[index].toFixed(1) });
    this.#draw();
  }

  #draw() {
    const { stack, index, viewer } = this.#open;
    const slice = stack.get(index);
    if (slice) viewer.show(index, slice);
  }
}

export function besideKeys(beside) {
  return [{ keys: ["x"], shown: ["x"], does: t("keys.beside"), act: () => beside.next() }];
}
