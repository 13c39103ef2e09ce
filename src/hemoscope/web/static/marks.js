// Measurements on the stage: drawn over their slice, made by dragging, kept with the study by the server, listed beside
// the slices and deletable.

import { Problem, getJson, sendJson } from "./api.js";
import { announce } from "./announce.js";
import { el, icon } from "./element.js";
import { measured, measuredWords } from "./measure.js";
import { t } from "./messages.js";
import { problemBox } from "./site.js";

const INK = "#7ee0ff";
const SHADOW = "rgb(0 0 0 / 85%)";
const LEAST_DRAG = 3; // screen pixels; less is a click
const foundWords = (mark) => t("measure.found", { kind: t(`measure.${mark.kind}`), values: measuredWords(mark.kind, mark.found).join(", ") });

const pointsOf = (mark) => mark.points.map(([row, column]) => ({ row, column }));

/** Screen position of a point of the slice, by where the slice lies on the stage. */
const onStage = (place, image, { row, column }) => [place.left + (column / image.columns) * place.width, place.top + (row / image.rows) * place.height];

function outline(context, kind, ends) {
  const [[x, y], [toX, toY] = [x, y]] = ends;
  context.beginPath();
  if (kind === "length") {
    context.moveTo(x, y);
    context.lineTo(toX, toY);
  } else if (kind === "rectangle") context.rect(Math.min(x, toX), Math.min(y, toY), Math.abs(toX - x), Math.abs(toY - y));
  else if (kind === "ellipse") context.ellipse((x + toX) / 2, (y + toY) / 2, Math.abs(toX - x) / 2, Math.abs(toY - y) / 2, 0, 0, 2 * Math.PI);
  else {
    context.moveTo(x - 6, y);
    context.lineTo(x + 6, y);
    context.moveTo(x, y - 6);
    context.lineTo(x, y + 6);
  }
  for (const [strokeStyle, lineWidth] of [[SHADOW, 4], [INK, 1.5]]) {
    Object.assign(context, { strokeStyle, lineWidth });
    context.stroke();
  }
}

function caption(context, lines, [x, y]) {
  context.font = "13px system-ui, sans-serif";
  context.textBaseline = "top";
  const widest = Math.max(...lines.map((line) => context.measureText(line).width));
  const left = Math.max(Math.min(x, context.canvas.clientWidth - widest - 6), 4);
  lines.forEach((line, place) => {
    Object.assign(context, { strokeStyle: SHADOW, lineWidth: 3, fillStyle: INK });
    context.strokeText(line, left, y + place * 16);
    context.fillText(line, left, y + place * 16);
  });
}

export class Marks {
  #studyId;
  #reading;
  #list;
  #kept = [];
  #drawn = null; // the one that is being dragged: {kind, slice, from, to}

  /** `reading` shows the slices; `list` is the element that lists the measurements. */
  constructor(studyId, reading, list) {
    this.#studyId = studyId;
    this.#reading = reading;
    this.#list = list;
    reading.overlay = (context, place, image) => this.#draw(context, place, image);
  }

  async load() {
    const { measurements } = await getJson(`/studies/${this.#studyId}/measurements`);
    this.#kept = measurements;
    this.#changed();
  }

  /** Begin a measurement at a point {row, column, x, y} of the slice shown. */
  start(kind, point) {
    this.#drawn = { kind, slice: this.#reading.index, from: point, to: point };
    if (kind === "probe") this.end();
  }

  move(point) {
    if (!this.#drawn) return;
    this.#drawn.to = point;
    this.#reading.redraw();
  }

  /** Keep what was drawn, unless it was a click. */
  end() {
    const drawn = this.#drawn;
    this.#drawn = null;
    if (!drawn) return;
    const { kind, slice, from, to } = drawn;
    const isClick = Math.hypot(to.x - from.x, to.y - from.y) < LEAST_DRAG;
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
      this.#kept.push(mark);
      announce(foundWords(mark));
    });
  }

  async #remove({ measurement_id: id }) {
    await this.#attempt(async () => {
      await sendJson("DELETE", `/studies/${this.#studyId}/measurements/${id}`);
      this.#kept = this.#kept.filter((mark) => mark.measurement_id !== id);
      announce(t("measure.deleted"));
    });
  }

  async #attempt(act) {
    let trouble = null;
    try {
      await act();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      trouble = problemBox(error);
    }
    this.#changed(trouble);
  }

  /** Delete the newest measurement on the slice shown. */
  removeLast() {
    const here = this.#kept.filter((mark) => mark.slice === this.#reading.index);
    if (here.length > 0) this.#remove(here.at(-1));
  }

  #changed(trouble = null) {
    const item = (mark) =>
      el(
        "li",
        {},
        el("button", { type: "button", class: "quiet small mark-place", onclick: () => this.#reading.goTo(mark.slice) }, t("viewer.slice", { number: mark.slice + 1 })),
        el("span", { class: "mark-words", text: foundWords(mark) }),
        el("button", { type: "button", class: "quiet small", "aria-label": t(`measure.delete-${mark.kind}`, { number: mark.slice + 1 }), onclick: () => this.#remove(mark) }, icon("close")),
      );
    const sorted = [...this.#kept].sort((a, b) => a.slice - b.slice);
    this.#list.hidden = sorted.length === 0 && !trouble;
    this.#list.replaceChildren(...(this.#list.hidden ? [] : [el("h2", { text: t("measure.title") }), el("ul", {}, sorted.map(item))]), ...(trouble ? [trouble] : []));
    this.#reading.redraw();
  }

  #draw(context, place, image) {
    const slice = this.#reading.current;
    for (const mark of this.#kept) {
      if (mark.slice === slice?.index) this.#drawOne(context, place, image, mark.kind, pointsOf(mark), mark.found);
    }
    if (this.#drawn && slice?.index === this.#drawn.slice) {
      const { kind, from, to } = this.#drawn;
      this.#drawOne(context, place, image, kind, [from, to], measured(kind, [from, to], slice, this.#reading.shown));
    }
  }

  #drawOne(context, place, image, kind, points, found) {
    const ends = points.map((point) => onStage(place, image, point));
    outline(context, kind, ends);
    const right = ends.reduce((a, b) => (a[0] > b[0] ? a : b));
    if (found) caption(context, measuredWords(kind, found), [right[0] + 8, right[1] + 4]);
  }
}
