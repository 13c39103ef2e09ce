// One study on the stage: which slice, window, label and heat map are shown. The page's controls and keys act on this.

import { heatMap, slicePixels } from "./api.js";
import { announce } from "./announce.js";
import { find } from "./element.js";
import { probability } from "./format.js";
import { shownGeometry } from "./geometry.js";
import { HeatMaps } from "./heat.js";
import { showHeatStyle, showIfEmpty, steppedThreshold } from "./heat_controls.js";
import { labelName, labelShort } from "./labels.js";
import { t } from "./messages.js";
import { SlabView } from "./slab_view.js";
import { capacityFor, SliceStack } from "./stack.js";
import { showPlace, showScale, showSides, showUnder, showWindow, SLOW_MS } from "./stage_words.js";
import { Strip } from "./strip.js";
import { FITTED, panned, zoomedAt } from "./view.js";
import { Viewer } from "./viewer.js";
import { keepView, keptView } from "./kept_view.js";
import { draggedWindow, PRESETS } from "./window.js";

export class Reading {
  index = 0;
  direction = 1;
  label = "any";
  heatOn = false;
  opacity = 0.5;
  heatStyle = { threshold: 0.1, outline: false };
  window = { ...PRESETS[0] };
  inverted = false;
  pointer = []; // [x, y] on the stage, [] elsewhere
  table = null; // the table's position of each slice, while a series beside it is linked by them
  #whenShown = [];

  constructor(studyId, { onLabel, onProblem }) {
    this.studyId = studyId;
    this.onLabel = onLabel;
    this.onProblem = onProblem;
    this.canvas = find("#view");
    this.slab = new SlabView(() => this.geometry && this.goTo(this.index));
    this.strip = new Strip(find("#strip"), { onSlice: (index) => this.goTo(index), onLabel: (label) => this.choose(label) });
  }

  /** Take the study's geometry: at first where the slices lie, later their probabilities too. It opens at slice `start`. */
  open(geometry, notEstablished, start = Math.floor(geometry.slices / 2)) {
    const first = !this.geometry;
    this.geometry = geometry;
    this.shown = shownGeometry(geometry);
    if (first) this.#start();
    this.strip.draw(geometry, notEstablished);
    this.strip.showLabel(this.label);
    this.heat = new HeatMaps(geometry, (index, label, signal) => heatMap(this.studyId, index, label, signal), (index) => index === this.index && this.#showHeat(), (index) => index === this.index && showIfEmpty(this));
    showSides(this.shown, geometry);
    this.goTo(first ? start : this.index);
  }

  /** The slice on screen, with its HU; null before the first. */
  get current() {
    return this.viewer?.slice ?? null;
  }

  /** Call `act` whenever another slice or window is shown. */
  whenShown(act) {
    this.#whenShown.push(act);
  }

  redraw() {
    this.viewer?.draw();
  }

  get hasMaps() {
    return Boolean(this.geometry?.heatmap_shape && this.geometry.boxes?.length === this.geometry.slices);
  }

  #start() {
    const { slices, rows, columns } = this.geometry;
    this.viewer = new Viewer(this.canvas, { shape: this.shown, onDrawn: (place) => showScale(this.shown, place.scale, this.viewer.stage.width) });
    this.#styleHeat();
    this.viewer.overlay = (...drawn) => {
      this.overlay?.(...drawn);
      this.crossHair?.(...drawn);
      this.whenDrawn?.();
    };
    this.stack = new SliceStack({
      count: slices,
      load: (index, signal) => slicePixels(this.studyId, index, signal),
      onLoaded: (index) => (index === this.index || this.slab.needed(this.index).includes(index)) && this.#show(),
      onFailed: (index, error) => this.#failed(index, error),
      capacity: capacityFor(rows * columns * 2),
      firstAlone: true,
    });
    this.slab.open(this.geometry);
    const kept = keptView(this.studyId);
    this.viewer.view = kept.view ?? FITTED;
    Object.assign(this, { inherited: kept.inherited, inverted: kept.inverted });
    this.setWindow(kept.window ?? this.window);
  }

  goTo(index) {
    if (!this.geometry) return;
    const next = Math.min(Math.max(index, 0), this.geometry.slices - 1);
    if (next !== this.index) this.direction = Math.sign(next - this.index);
    this.index = next;
    this.canvas.dataset.slice = next;
    this.stack.want(next, this.direction, this.slab.needed(next));
    this.strip.showSlice(next);
    this.#show();
    this.#describe();
    for (const act of this.#whenShown) act();
  }

  scroll(steps) {
    this.goTo(this.index + steps);
  }

  #show() {
    const slice = this.stack.get(this.index);
    clearTimeout(this.waiting);
    if (slice) {
      find("#stage-message").hidden = true;
      this.#showHeat();
      this.viewer.show(this.index, slice, this.slab.pixels(this.index, this.stack));
    } else {
      // The last picture stays until the next one has arrived; only a long wait is announced.
      this.waiting = setTimeout(() => this.message(t("viewer.loading", { number: this.index + 1 })), SLOW_MS);
    }
    this.#probe();
  }

  #failed(index, error) {
    if (index !== this.index) return void (this.slab.needed(this.index).includes(index) && this.#show()); // it says that the slab is not possible
    clearTimeout(this.waiting);
    this.onProblem(error);
  }

  message(text) {
    find("#stage-message").textContent = text;
    find("#stage-message").hidden = false;
  }

  #showHeat() {
    if (!this.stack.get(this.index)) return;
    const wanted = this.heatOn && this.hasMaps;
    this.viewer.setHeat(wanted ? this.heat.want(this.index, this.label, this.direction) : null);
    showIfEmpty(this);
  }

  choose(label) {
    this.label = label;
    this.strip.showLabel(label);
    find("#heat-label").textContent = labelShort(label);
    this.#showHeat();
    this.onLabel(label);
    this.#describe();
  }

  setHeat(on) {
    this.heatOn = on;
    find("#heat").setAttribute("aria-pressed", on);
    find("#heat-scale").hidden = !on;
    if (!this.viewer) return;
    this.#styleHeat();
    this.#showHeat();
  }

  setOpacity(opacity) {
    this.opacity = Math.min(Math.max(Math.round(opacity * 20) / 20, 0.05), 1);
    find("#opacity").value = this.opacity;
    find("#opacity").setAttribute("aria-valuetext", t("heat.percent", { percent: Math.round(this.opacity * 100) }));
    this.#styleHeat();
  }

  setHeatStyle({ threshold = this.heatStyle.threshold, outline = this.heatStyle.outline }) {
    this.heatStyle = { threshold: steppedThreshold(threshold), outline };
    showHeatStyle(this.heatStyle);
    this.#styleHeat();
  }

  #styleHeat() {
    this.viewer?.setHeatStyle({ ...this.heatStyle, opacity: this.heatOn ? this.opacity : 0 });
    showIfEmpty(this);
  }

  setWindow({ center, width }) {
    this.window = { center, width };
    this.viewer?.setWindow(this.window, this.inverted);
    showWindow(this.window, this.inverted);
    keepView(this);
    this.canvas.dataset.window = `${center}/${width}`;
    for (const act of this.#whenShown) act();
  }

  setInverted(inverted) {
    this.inverted = inverted;
    this.setWindow(this.window);
  }

  windowStart() {
    this.from = this.window;
  }

  windowBy(dx, dy) {
    this.setWindow(draggedWindow(this.from, dx, dy));
  }

  zoom(factor, x, y) {
    if (!this.viewer) return;
    const { width, height } = this.viewer.stage;
    this.look(zoomedAt(this.viewer.view, this.viewer.stage, factor, x ?? width / 2, y ?? height / 2));
  }

  pan(dx, dy) {
    if (this.viewer) this.look(panned(this.viewer.view, this.viewer.stage, dx, dy));
  }

  /** Show another part of the slice. */
  look(view) {
    this.viewer.view = view;
    this.viewer.draw();
    this.#probe();
    keepView(this);
  }

  reset() {
    if (!this.viewer) return;
    this.look(FITTED);
    this.setInverted(false);
    this.setWindow(PRESETS[0]);
  }

  hover(...pointer) {
    this.pointer = pointer;
    this.#probe();
  }

  /** Show the HU under the pointer, none of the slice before while the chosen one is loading. */
  #probe() {
    showUnder(this.current?.index === this.index ? this.viewer.hounsfieldAt(...this.pointer) : null);
  }

  #describe() {
    const { slices, probabilities, labels } = this.geometry;
    showPlace(this);
    const place = { number: this.index + 1, total: slices };
    const value = probabilities?.[this.index]?.[labels.indexOf(this.label)];
    const words = value === undefined ? t("viewer.slice-of", place) : t("viewer.slice-label", { ...place, label: labelName(this.label), probability: probability(value) });
    this.canvas.setAttribute("aria-label", words);
    announce(words);
  }
}
