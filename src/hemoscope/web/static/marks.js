// Measurements on the stage: drawn over their slice, made by dragging, kept with the study by the server, listed beside
// the slices and deletable.

import { Problem, getJson, getSite, sendJson } from "./api.js";
import { announce } from "./announce.js";
import { el, icon } from "./element.js";
import { drawAim, drawMark } from "./mark_drawing.js";
import { measured, measuredWords } from "./measure.js";
import { t } from "./messages.js";
import { problemBox } from "./site.js";

const LEAST_DRAG = 3; // screen pixels; less is a click
const foundWords = (mark) => t("measure.found", { kind: t(`measure.${mark.kind}`), values: measuredWords(mark.kind, mark.found).join(", ") });

const pointsOf = (mark) => mark.points.map(([row, column]) => ({ row, column }));

export class Marks {
  #studyId;
  #reading;
  #list;
  #kept = [];
  #me = null; // the name of the account, as measurements have it
  #acts = 0; // own changes that were begun or have ended
  #asked = 0;
  #removing = new Set(); // ids
  #aim = null; // the keyboard's cross-hair: {row, column}
  #drawn = null; // the one that is being drawn: {kind, slice, from, to}

  /** `reading` shows the slices; `list` is the element that lists the measurements. */
  constructor(studyId, reading, list) {
    this.#studyId = studyId;
    this.#reading = reading;
    this.#list = list;
    reading.overlay = (context, place, image) => this.#draw(context, place, image);
    reading.whenShown(() => this.#drawn && this.#drawn.slice !== reading.index && this.cancel());
  }

  /** The slice that is seen, if it is the chosen one: while another is loading, nothing is measured or deleted. */
  get #seen() {
    const index = this.#reading.current?.index;
    return index === this.#reading.index ? index : null;
  }

  /** Fetch what all readers have measured. What was fetched across an own change would undo it, and a slow answer a later one. */
  async load() {
    const mine = (this.#asked += 1);
    let found, before;
    this.#me = (await getSite()).user.name;
    do {
      before = this.#acts;
      found = (await getJson(`/studies/${this.#studyId}/measurements`)).measurements;
    } while (before !== this.#acts);
    if (mine !== this.#asked || JSON.stringify(found) === JSON.stringify(this.#kept)) return;
    this.#kept = found;
    this.#changed();
  }

  /** Begin a measurement at a point {row, column, x, y} of the slice shown. */
  start(kind, from, to = from) {
    if (this.#seen === null) return;
    this.#drawn = { kind, slice: this.#seen, from, to };
    if (kind === "probe") this.end();
  }

  move(to, from = this.#drawn?.from) {
    if (!this.#drawn) return;
    Object.assign(this.#drawn, { from, to });
    this.#reading.redraw();
  }

  /** What is being drawn, or null. */
  get drawn() {
    return this.#drawn;
  }

  /** Show a cross-hair at a point {row, column}, with the HU there as if the pointer were on it; null removes it. */
  aim(point) {
    this.#aim = point;
    if (!point) this.#reading.hover();
    this.#reading.redraw();
  }

  /** Keep what was drawn, unless it was a click: points nearer than `least` on the screen. Points set by key have no such limit. */
  end(least = LEAST_DRAG) {
    const drawn = this.#drawn;
    this.#drawn = null;
    if (!drawn) return;
    const { kind, slice, from, to } = drawn;
    const isClick = least > 0 && Math.hypot(to.x - from.x, to.y - from.y) < least;
    if (kind === "probe" || !isClick) this.#keep({ kind, slice, points: (kind === "probe" ? [from] : [from, to]).map(({ row, column }) => [row, column]) });
    else this.#reading.redraw();
  }

  cancel() {
    this.#drawn = null;
    this.#reading.redraw();
  }

  async #keep(given) {
    await this.#attempt(async () => {
      const mark = await sendJson("POST", `/studies/${this.#studyId}/measurements`, given);
      this.#kept = [...this.#without(mark.measurement_id), mark];
      announce(foundWords(mark));
    });
  }

  #without(id) {
    return this.#kept.filter((mark) => mark.measurement_id !== id);
  }

  async #remove({ measurement_id: id }) {
    if (this.#removing.has(id)) return;
    this.#removing.add(id);
    await this.#attempt(async () => {
      try {
        await sendJson("DELETE", `/studies/${this.#studyId}/measurements/${id}`);
      } catch (error) {
        if (error.code !== "no_such_measurement") throw error; // another reader has deleted it
      }
      this.#kept = this.#without(id);
      announce(t("measure.deleted"));
    });
    this.#removing.delete(id);
  }

  async #attempt(act) {
    let trouble = null;
    this.#acts += 1;
    try {
      await act();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      trouble = problemBox(error);
    }
    this.#acts += 1;
    this.#changed(trouble);
  }

  /** Delete the reader's own newest measurement on the slice shown: another reader's may come just before the key is pressed. */
  removeLast() {
    const here = this.#kept.filter((mark) => mark.slice === this.#seen && mark.by === this.#me && !this.#removing.has(mark.measurement_id));
    if (here.length > 0) this.#remove(here.at(-1));
  }

  #changed(trouble = null) {
    const item = (mark) =>
      el(
        "li",
        {},
        el("button", { type: "button", class: "quiet small mark-place", dataset: { mark: `${mark.measurement_id} place` }, onclick: () => this.#reading.goTo(mark.slice) }, t("viewer.slice", { number: mark.slice + 1 })),
        el("span", { class: "mark-words", text: foundWords(mark) }),
        el("button", { type: "button", class: "quiet small", dataset: { mark: `${mark.measurement_id} delete` }, "aria-label": t(`measure.delete-${mark.kind}`, { number: mark.slice + 1 }), onclick: () => this.#remove(mark) }, icon("close")),
      );
    const sorted = [...this.#kept].sort((a, b) => a.slice - b.slice);
    const focused = this.#list.contains(document.activeElement) && document.activeElement.dataset.mark;
    this.#list.hidden = sorted.length === 0 && !trouble;
    this.#list.replaceChildren(...(this.#list.hidden ? [] : [el("h2", { text: t("measure.title") }), el("ul", {}, sorted.map(item))]), ...(trouble ? [trouble] : []));
    if (focused) this.#list.querySelector(`[data-mark="${focused}"]`)?.focus(); // another reader's measurement takes no focus
    this.#reading.redraw();
  }

  #draw(context, place, image) {
    const slice = this.#reading.current;
    if (this.#aim) this.#reading.hover(...drawAim(context, place, image, this.#aim));
    for (const mark of this.#kept) {
      if (mark.slice === slice?.index) drawMark(context, place, image, mark.kind, pointsOf(mark), mark.found);
    }
    if (this.#drawn && slice?.index === this.#drawn.slice) {
      const { kind, from, to } = this.#drawn;
      drawMark(context, place, image, kind, [from, to], measured(kind, [from, to], slice, this.#reading.shown));
    }
  }
}
