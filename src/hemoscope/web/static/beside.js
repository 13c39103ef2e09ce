// Another series of the study beside the one that was read. Position, zoom and pan are linked by the patient's millimetres,
// until the reader unlinks them. Each series keeps a window of its own: what is put beside a brain is mostly its bone
// kernel, which the brain window does not show. The model has not read it, so it has no findings and no heat map.

import { announce } from "./announce.js";
import { seriesPixels } from "./api.js";
import { el, find } from "./element.js";
import { shownGeometry } from "./geometry.js";
import { wireGestures } from "./gestures.js";
import { nearestSlice, reachOf, shownBy, tablePositions, viewOf } from "./linked.js";
import { t } from "./messages.js";
import { capacityFor, SliceStack } from "./stack.js";
import { placeWords, showPlace, SLOW_MS } from "./stage_words.js";
import { panned, zoomedAt, FITTED } from "./view.js";
import { Viewer } from "./viewer.js";
import { draggedWindow, presetName, PRESETS, windowWords } from "./window.js";

const BONE = PRESETS[2];
const firstWindow = (description) => (/kernel (?:[bh][6-9]\d|bone|edge|yc|fc[38])/i.test(description) ? BONE : PRESETS[0]);

/** The letters at the edges, where the orientation is known. */
const sides = (marks) => ["left", "right", "top", "bottom"].map((edge) => el("span", { class: `mark mark-${edge}`, text: marks?.[edge] ?? "" }));

export class Beside {
  #studyId;
  #reading;
  #series = [];
  #mayLink = true;
  #open = null; // the parts of the series that is shown

  constructor(studyId, reading) {
    this.#studyId = studyId;
    this.#reading = reading;
    reading.whenShown(() => this.#follow());
    reading.whenDrawn = () => this.#followView();
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
    this.#reading.table = this.#open?.positions?.read ?? null;
    if (this.#reading.geometry) showPlace(this.#reading);
    this.#reading.redraw();
  }

  #close() {
    this.#open?.stack.close();
    clearTimeout(this.#open?.waiting);
    this.#open = null;
    find("#beside").replaceChildren();
  }

  #begin({ number, description, geometry }) {
    const shape = shownGeometry(geometry);
    const canvas = el("canvas", { role: "img", "aria-label": t("beside.series", { series: description }) });
    const [place, caution, name] = [el("p"), el("p", { class: "geometry-caution" }), el("p", { class: "corner corner-br" })];
    const preset = el("select", { "aria-label": t("beside.window-label") }, el("option", { value: "", text: t("window.custom") }), ...PRESETS.map((one) => el("option", { value: one.key, text: presetName(one) })));
    const corner = el("div", { class: "corner corner-tl" }, place, el("p", { text: description }), el("p", { class: "beside-unread", text: t("beside.unread") }), caution);
    const message = el("p", { class: "stage-message", hidden: true });
    const stage = el("div", { class: "beside-stage" }, canvas, corner, name, ...sides(shape.marks), message);
    const link = el("button", { title: t("beside.link-title"), onclick: () => this.toggleLink() }, t("beside.link"));
    find("#beside").replaceChildren(stage, el("div", { class: "beside-tools" }, el("label", {}, el("span", { text: t("beside.window") }), preset), link));
    const stack = new SliceStack({
      count: geometry.slices,
      load: (index, signal) => seriesPixels(this.#studyId, number, index, signal),
      onLoaded: (index) => index === this.#open?.index && this.#draw(),
      onFailed: (index, error) => index === this.#open?.index && this.#fail(error),
      capacity: capacityFor(geometry.rows * geometry.columns * 2),
    });
    const mine = tablePositions(geometry);
    const read = tablePositions(this.#reading.geometry);
    const linked = mine && read ? { mine, read, reach: reachOf(mine) } : null;
    link.hidden = linked === null;
    const viewer = new Viewer(canvas, { shape, onDrawn: () => this.#fit(viewer) });
    this.#open = { number, geometry, canvas, place, caution, message, name, preset, stack, link, positions: linked, index: Math.floor(geometry.slices / 2), viewer, fitted: "" };
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
    const view = (next) => this.#look(next);
    let from = null;
    const nothing = () => {};
    const acts = {
      scroll: (steps) => this.#scroll(steps),
      windowStart: () => (from = this.#open.window),
      windowBy: (dx, dy) => this.#setWindow(draggedWindow(from, dx, dy)),
      pan: (dx, dy) => view(panned(viewer.view, viewer.stage, dx, dy)),
      zoom: (factor, x, y) => view(zoomedAt(viewer.view, viewer.stage, factor, x, y)),
      reset: () => (this.#isLinked ? this.#reading.look(FITTED) : view(FITTED)),
      hover: nothing,
      leave: nothing,
      measures: () => false,
      grabs: () => false,
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

  get #isLinked() {
    return this.#mayLink && Boolean(this.#open?.positions);
  }

  /** Link position, zoom and pan, or let each series have its own. */
  toggleLink() {
    if (!this.#open?.positions) return;
    this.#mayLink = !this.#mayLink;
    announce(t(this.#mayLink ? "beside.now-linked" : "beside.now-unlinked"));
    this.#follow();
    this.#reading.redraw();
  }

  /** The series that was read shows another slice: show the nearest one beside it. */
  #follow() {
    if (!this.#open || this.#open.leading) return;
    const { positions, link, caution } = this.#open;
    const found = this.#isLinked ? nearestSlice(positions.mine, positions.read[this.#reading.index]) : { index: this.#open.index, mm: 0 };
    this.#goTo(found.index);
    link.setAttribute("aria-pressed", this.#isLinked);
    if (!this.#isLinked) caution.textContent = t(positions ? "beside.unlinked" : "beside.not-linked");
    else caution.textContent = found.mm > positions.reach ? t("beside.far", { mm: found.mm.toFixed(0) }) : "";
  }

  /** Once the stage or the slices have another shape, the same part of the patient is another part of them. */
  #fit(viewer) {
    if (viewer !== this.#open?.viewer) return;
    const { stage, image } = viewer;
    const fitted = [stage.width, stage.height, image.rows, image.columns].join(" ");
    if (fitted === this.#open.fitted) return;
    this.#open.fitted = fitted;
    this.#followView();
  }

  /** The series that was read shows another part of itself: show the same beside it. */
  #followView() {
    if (!this.#isLinked || !this.#reading.current) return;
    const { viewer, geometry, index } = this.#open;
    viewer.view = viewOf(shownBy(this.#reading.viewer, this.#reading.geometry, this.#reading.index), viewer, geometry, index);
    viewer.draw();
  }

  /** This series shows another part of itself: the one that was read shows the same. */
  #look(view) {
    const { viewer, geometry, index } = this.#open;
    viewer.view = view;
    viewer.draw();
    if (!this.#isLinked || !this.#reading.current) return;
    this.#reading.look(viewOf(shownBy(viewer, geometry, index), this.#reading.viewer, this.#reading.geometry, this.#reading.index));
  }

  /** This series is scrolled: the one that was read follows it. */
  #scroll(steps) {
    const { positions, index, geometry } = this.#open;
    this.#goTo(Math.min(Math.max(index + steps, 0), geometry.slices - 1), Math.sign(steps));
    if (!this.#isLinked) return;
    this.#open.caution.textContent = "";
    const other = nearestSlice(positions.read, positions.mine[this.#open.index]).index;
    this.#open.leading = true; // what follows must not lead
    if (other !== this.#reading.index) this.#reading.goTo(other);
    this.#open.leading = false;
  }

  #goTo(index, direction = Math.sign(index - this.#open.index) || 1) {
    const { stack, place, geometry, positions, canvas } = this.#open;
    if (index !== this.#open.index) this.#open.failed = false;
    this.#open.index = index;
    canvas.dataset.slice = index;
    stack.want(index, direction);
    place.textContent = placeWords(index, geometry, positions?.mine);
    this.#draw();
  }

  /** The last picture stays until the next one has arrived; a long wait is announced, and an error stands until then. */
  #draw() {
    const { stack, index, viewer, message, failed } = this.#open;
    const slice = stack.get(index);
    clearTimeout(this.#open.waiting);
    if (slice) {
      this.#open.failed = false;
      message.hidden = true;
      viewer.show(index, slice);
    } else if (!failed) this.#open.waiting = setTimeout(() => this.#say(t("viewer.loading", { number: index + 1 })), SLOW_MS);
  }

  #fail(error) {
    clearTimeout(this.#open.waiting);
    this.#open.failed = true;
    this.#say(error.message);
  }

  #say(text) {
    this.#open.message.textContent = text;
    this.#open.message.hidden = false;
  }
}

export function besideKeys(beside) {
  return [{ keys: ["x"], shown: ["x"], does: t("keys.beside"), act: () => beside.next() }, { keys: ["z"], shown: ["z"], does: t("keys.beside-link"), act: () => beside.toggleLink() }];
}
