// Measurements on the stage: drawn over their slice, made and corrected by dragging, kept with the study by the server,
// listed beside the slices and deletable. The server changes no measurement: a corrected one replaces the one before.

import { Problem, getJson, getSite, sendJson } from "./api.js";
import { announce } from "./announce.js";
import { drawAim, drawHandles, drawMark } from "./mark_drawing.js";
import { asPoints, handlesOf, movedPoints, nearestHandle } from "./mark_handles.js";
import { MarkHistory } from "./mark_history.js";
import { foundWords, listMarks } from "./mark_list.js";
import { measured } from "./measure.js";
import { t } from "./messages.js";
import { problemBox } from "./site.js";

const LEAST_DRAG = 3; // screen pixels; less is a click
const isSame = (one, other) => one?.measurement_id === other?.measurement_id; // a list that is fetched again has new objects

export class Marks {
  #path;
  #reading;
  #list;
  #kept = [];
  #me = null; // the name of the account, as measurements have it
  #acts = 0; // own changes that were begun or have ended
  #asked = 0;
  #changing = new Map(); // by id, those that are being replaced or deleted: their new points, or null
  #history = new MarkHistory();
  #settled = Promise.resolve(); // once all changes have ended that were begun
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

  /** Show which handle of an own measurement is within `reach` of a place on the stage; returns it as {mark, handle}, or null. */
  near(x, y, reach) {
    if (this.#drawn) return this.#near;
    const { viewer } = this.#reading;
    const near = viewer && x !== undefined ? nearestHandle(this.#own, viewer.place, viewer.image, [x, y], reach) : null;
    if (!isSame(near?.mark, this.#near?.mark)) this.#reading.redraw();
    this.#near = near;
    document.querySelector("#stage").toggleAttribute("data-grab", near !== null);
    return near;
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
    if (kept) this.#change(mark, { kind, slice, points: points.map(({ row, column }) => [row, column]) });
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
    if (mark) return movedPoints(asPoints(mark.points), handle, from, to, this.#reading.viewer.image);
    return kind === "probe" ? [from] : [from, to];
  }

  /** Make a change that can be taken back: store what is `given` (null: delete) in the place of an `old` measurement (null: draw). */
  #change(old, given) {
    const change = this.#replace(old, given);
    change.then((done) => this.#history.note(done));
    this.#settled = Promise.allSettled([this.#settled, change]);
  }

  /** Returns what was {added, removed}: first the new one is stored, so that no failure loses both. `said` are the words for what is there now. */
  async #replace(old, given, said = (words) => words) {
    const done = { added: null, removed: null };
    const id = old?.measurement_id;
    if (this.#changing.has(id)) return done;
    if (old) this.#changing.set(id, given?.points ?? null);
    await this.#attempt(async () => {
      try {
        if (given) done.added = await sendJson("POST", this.#path, given);
        if (done.added) this.#kept = [...this.#without(done.added.measurement_id), done.added];
        if (old && (await this.#delete(id))) done.removed = old;
        announce(said(done.added ? foundWords(done.added) : t("measure.deleted")));
      } finally {
        this.#changing.delete(id);
      }
    });
    return done;
  }

  /** Returns whether it was there: another reader may have deleted it. */
  async #delete(id) {
    let wasThere = true;
    try {
      await sendJson("DELETE", `${this.#path}/${id}`);
    } catch (error) {
      if (error.code !== "no_such_measurement") throw error;
      wasThere = false;
    }
    this.#kept = this.#without(id);
    return wasThere;
  }

  /** Take back the reader's last change in this page once those under way have ended, or what is being drawn. */
  undo() {
    if (this.#drawn) return this.cancel();
    const act = () => this.#undoLast();
    this.#settled = this.#settled.then(act, act);
  }

  async #undoLast() {
    const change = this.#history.take((mark) => this.#kept.some((one) => isSame(one, mark)));
    if (!change) return announce(t("measure.nothing-to-undo"));
    const { added, removed } = change;
    if (removed && removed.by !== this.#me) return this.#changed(problemBox({ detail: t("measure.of-another"), remedy: t("measure.of-another.remedy") }));
    const { kind, slice, points } = removed ?? added;
    if (slice !== this.#reading.index) this.#reading.goTo(slice);
    const done = await this.#replace(added, removed && { kind, slice, points }, (now) => t("measure.undone", { now }));
    if (done.added) this.#history.restored(removed, done.added);
    this.#history.note({ added: done.removed ? null : added, removed: done.added ? null : removed }); // what failed can be tried again
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
    if (here.length > 0) this.#change(here.at(-1), null);
  }

  #changed(trouble = null) {
    listMarks(this.#list, this.#kept, trouble, { onSlice: (index) => this.#reading.goTo(index), onDelete: (mark) => this.#change(mark, null) });
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
