// Measurements on the stage: drawn over their slice, made and corrected by dragging, kept with the study by the server,
// listed beside the slices and deletable. The server changes no measurement: a corrected one replaces the one before.

import { Problem, getJson, getSite, sendJson } from "./api.js";
import { announce } from "./announce.js";
import { el, icon } from "./element.js";
import { drawAim, drawHandles, drawMark } from "./mark_drawing.js";
import { handlesOf, movedPoints, nearestHandle } from "./mark_handles.js";
import { measured, measuredWords } from "./measure.js";
import { t } from "./messages.js";
import { problemBox } from "./site.js";
import { placement } from "./view.js";

const LEAST_DRAG = 3; // screen pixels; less is a click
const foundWords = (mark) => t("measure.found", { kind: t(`measure.${mark.kind}`), values: measuredWords(mark.kind, mark.found).join(", ") });

const isSame = (one, other) => one?.measurement_id === other?.measurement_id; // a list that is fetched again has new objects
const asPoints = (pairs) => pairs.map(([row, column]) => ({ row, column }));
const pointsOf = (mark) => asPoints(mark.points);

export class Marks {
  #path;
  #reading;
  #list;
  #kept = [];
  #me = null; // the name of the account, as measurements have it
  #acts = 0; // own changes that were begun or have ended
  #asked = 0;
  #changing = new Map(); // by id, those that are being replaced or deleted: their new points, or null
  #aim = null; // the keyboard's cross-hair: {row, column}
  #near = null; // the own one that can be taken hold of: {mark, handle}
  #drawn = null; // the one that is being drawn: {kind, slice, from, to}, and if it is corrected {mark, handle}

  /** `reading` shows the slices; `list` is the element that lists the measurements. */
  constructor(studyId, reading, list) {
    this.#path = `/studies/${studyId}/measurements`;
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

  /** The reader's own measurements on the slice that is seen, none of which is being replaced or deleted. */
  get #own() {
    return this.#kept.filter((mark) => mark.slice === this.#seen && mark.by === this.#me && !this.#changing.has(mark.measurement_id));
  }

  /** Fetch what all readers have measured. What was fetched across an own change would undo it, and a slow answer a later one. */
  async load() {
    const mine = (this.#asked += 1);
    let found, before;
    this.#me = (await getSite()).user.name;
    do {
      before = this.#acts;
      found = (await getJson(this.#path)).measurements;
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

  /** Show what can be taken hold of within `reach` of a place on the stage, a handle of an own measurement; returns it as {mark, handle}, or null. */
  near(x, y, reach) {
    if (this.#drawn) return this.#near;
    const { viewer } = this.#reading;
    const own = viewer && x !== undefined ? this.#own : [];
    const handles = own.flatMap((mark) => handlesOf(mark.kind, pointsOf(mark)).map((handle) => ({ ...handle, mark })));
    const handle = handles.length > 0 ? nearestHandle(handles, placement(viewer.view, viewer.stage, viewer.image), viewer.image, [x, y], reach) : null;
    if (!isSame(handle?.mark, this.#near?.mark)) this.#reading.redraw();
    this.#near = handle && { mark: handle.mark, handle };
    document.querySelector("#stage").toggleAttribute("data-grab", handle !== null);
    return this.#near;
  }

  /** Begin to correct what was near, from a point {row, column, x, y} of the slice shown. */
  grab(from) {
    if (!this.#near || this.#seen !== this.#near.mark.slice) return;
    const { kind, slice } = this.#near.mark;
    this.#drawn = { kind, slice, from, to: from, ...this.#near };
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
    this.near(); // it has another place by now
    const { kind, slice, from, to, mark = null } = drawn;
    const isClick = least > 0 && Math.hypot(to.x - from.x, to.y - from.y) < least;
    const points = this.#pointsDrawn(drawn);
    const kept = mark ? !isClick && this.#mayReplace(mark, points) : !isClick || kind === "probe";
    if (kept) this.#replace(mark, { kind, slice, points: points.map(({ row, column }) => [row, column]) });
    else this.#reading.redraw();
  }

  /** Not if it was deleted meanwhile, nor by a length whose end is on its start. */
  #mayReplace(mark, points) {
    return this.#own.some((one) => isSame(one, mark)) && this.#measured(mark.kind, points)?.length_mm !== 0;
  }

  cancel() {
    this.#drawn = null;
    this.#reading.redraw();
  }

  #pointsDrawn({ kind, from, to, mark, handle }) {
    if (mark) return movedPoints(pointsOf(mark), handle, from, to, this.#reading.viewer.image);
    return kind === "probe" ? [from] : [from, to];
  }

  /** Store what is `given`, unless null, in the place of an `old` measurement, unless null: first the new one, so that no failure loses both. */
  async #replace(old, given) {
    const id = old?.measurement_id;
    if (this.#changing.has(id)) return;
    if (old) this.#changing.set(id, given?.points ?? null);
    await this.#attempt(async () => {
      try {
        const added = given && (await sendJson("POST", this.#path, given));
        if (added) this.#kept = [...this.#without(added.measurement_id), added];
        if (old) await this.#delete(id);
        announce(added ? foundWords(added) : t("measure.deleted"));
      } finally {
        this.#changing.delete(id);
      }
    });
  }

  async #delete(id) {
    try {
      await sendJson("DELETE", `${this.#path}/${id}`);
    } catch (error) {
      if (error.code !== "no_such_measurement") throw error; // another reader has deleted it
    }
    this.#kept = this.#without(id);
  }

  #without(id) {
    return this.#kept.filter((mark) => mark.measurement_id !== id);
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
    const here = this.#own;
    if (here.length > 0) this.#replace(here.at(-1), null);
  }

  #changed(trouble = null) {
    const item = (mark) =>
      el(
        "li",
        {},
        el("button", { type: "button", class: "quiet small mark-place", dataset: { mark: `${mark.measurement_id} place` }, onclick: () => this.#reading.goTo(mark.slice) }, t("viewer.slice", { number: mark.slice + 1 })),
        el("span", { class: "mark-words", text: foundWords(mark) }),
        el("button", { type: "button", class: "quiet small", dataset: { mark: `${mark.measurement_id} delete` }, "aria-label": t(`measure.delete-${mark.kind}`, { number: mark.slice + 1 }), onclick: () => this.#replace(mark, null) }, icon("close")),
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
      if (mark.slice === slice?.index && !isSame(mark, this.#drawn?.mark)) this.#drawKept(mark, context, place, image);
    }
    if (this.#drawn && this.#drawn.slice === slice?.index) this.#drawDrawn(context, place, image);
  }

  #drawDrawn(...stage) {
    const { kind, mark } = this.#drawn;
    const points = this.#pointsDrawn(this.#drawn);
    drawMark(...stage, kind, points, this.#measured(kind, points));
    if (mark) drawHandles(...stage, handlesOf(kind, points));
  }

  #drawKept({ measurement_id: id, kind, points, found }, ...stage) {
    const moved = this.#changing.get(id); // until the server has answered
    const shown = asPoints(moved ?? points);
    drawMark(...stage, kind, shown, moved ? this.#measured(kind, shown) : found);
    if (id === this.#near?.mark.measurement_id) drawHandles(...stage, handlesOf(kind, shown));
  }

  #measured(kind, points) {
    return measured(kind, points, this.#reading.current, this.#reading.shown);
  }
}
