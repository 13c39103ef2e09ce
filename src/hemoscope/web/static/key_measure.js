// Measuring with the keyboard: while a measuring tool is chosen and the slice has the focus, the arrow keys move a
// cross-hair over it and Enter sets the points of the measurement. Space takes hold of one that was set before.

import { announce } from "./announce.js";
import { find } from "./element.js";
import { focusByKeyOnly } from "./gestures.js";
import { isCommand } from "./keys.js";
import { onStage } from "./mark_drawing.js";
import { t } from "./messages.js";

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const FAST = 10; // pixels with Shift
const MARGIN = 24; // screen pixels between the cross-hair and the edges of the stage
const REGIONS = ["ellipse", "rectangle"];

const outer = (from, to) => (from <= to ? [from - 0.5, to + 0.5] : [from + 0.5, to - 0.5]);

/** The points of a measurement from the middle of a pixel to that of another; a region holds both pixels whole, so that its area is theirs. */
function pointsOf(kind, from, to) {
  if (!REGIONS.includes(kind)) return [from, to];
  const [rows, columns] = [outer(from.row, to.row), outer(from.column, to.column)];
  return [0, 1].map((end) => ({ row: rows[end], column: columns[end] }));
}

export class KeyMeasure {
  #reading;
  #marks;
  #tool;
  #canvas = find("#view");
  #at = null; // {row, column}; stays for the next measurement
  #from = null; // where the one that is being made begins
  #begun = null; // that one

  /** `tool()` is the measuring tool that is chosen, or null. */
  constructor(reading, marks, tool) {
    this.#reading = reading;
    this.#marks = marks;
    this.#tool = tool;
    focusByKeyOnly(this.#canvas);
    this.#canvas.addEventListener("keydown", (event) => this.#press(event));
    this.#canvas.addEventListener("focus", () => this.#show());
    this.#canvas.addEventListener("blur", () => this.#hide());
  }

  /** Another tool was chosen: only a measuring tool makes the slice take the focus and the arrow keys. */
  follow() {
    const measuring = this.#tool() !== null;
    this.#marks.cancel();
    this.#canvas.setAttribute("role", measuring ? "application" : "img");
    const taking = { tabindex: 0, "aria-describedby": "measure-keys" };
    if (!measuring) this.#canvas.blur();
    for (const [name, value] of Object.entries(taking)) measuring ? this.#canvas.setAttribute(name, value) : this.#canvas.removeAttribute(name);
  }

  /** Begin with the keyboard, if a measuring tool is chosen. */
  focus() {
    if (this.#tool() && this.#reading.viewer && !this.#marks.drawn) this.#canvas.focus();
  }

  #show() {
    const { viewer } = this.#reading;
    if (!this.#tool() || !viewer) return;
    const { rows, columns } = viewer.image;
    const { row, column } = this.#at ?? viewer.pointAt(viewer.stage.width / 2, viewer.stage.height / 2) ?? { row: rows / 2, column: columns / 2 };
    this.#goTo(row, column);
    find("#measure-keys").hidden = false;
  }

  #hide() {
    find("#measure-keys").hidden = true;
    this.#marks.cancel();
    this.#marks.near();
    this.#marks.aim(null);
  }

  /** Put the cross-hair on the middle of the pixel at a place, as near as the slice has one, and bring it into sight. */
  #goTo(row, column) {
    const { viewer } = this.#reading;
    const { rows, columns } = viewer.image;
    const middle = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1) + 0.5;
    this.#at = { row: middle(row, rows), column: middle(column, columns) };
    const [x, y] = this.#place;
    const into = (value, most) => Math.min(Math.max(value, MARGIN), most - MARGIN) - value;
    const [dx, dy] = [into(x, viewer.stage.width), into(y, viewer.stage.height)];
    const { zoom, panX, panY } = viewer.view;
    const movable = zoom > 1 || panX !== 0 || panY !== 0; // else the whole slice is in sight
    if (movable && (dx !== 0 || dy !== 0)) this.#reading.pan(dx, dy);
    this.#marks.aim(this.#at);
    if (this.#isMine) this.#marks.move(...(this.#begun.mark ? [this.#at] : pointsOf(this.#begun.kind, this.#from, this.#at).reverse()));
  }

  /** Where the cross-hair is on the stage. */
  get #place() {
    const { place, image } = this.#reading.viewer;
    return onStage(place, image, this.#at);
  }

  /** Whether what is being drawn was begun by key: what a pointer draws is left to it. */
  get #isMine() {
    return this.#begun !== null && this.#begun === this.#marks.drawn;
  }

  #press(event) {
    const { key, shiftKey, repeat } = event;
    const acts = { Escape: () => this.#marks.cancel(), Enter: () => repeat || this.#set(), " ": () => repeat || this.#take() };
    if (!(key in STEPS || key in acts) || !this.#tool() || !this.#at || isCommand(event)) return;
    event.preventDefault(); // the reading keys scroll with the arrows
    if (key in STEPS) this.#step(STEPS[key], shiftKey ? FAST : 1);
    else acts[key]();
  }

  #step([down, across], pixels) {
    this.#goTo(this.#at.row + down * pixels, this.#at.column + across * pixels);
    const [row, column] = [this.#at.row, this.#at.column].map(Math.floor);
    const { hounsfield, columns } = this.#reading.current ?? {};
    announce(this.#isSeen ? t("viewer.hover", { value: hounsfield[row * columns + column], column, row }) : this.#loading);
  }

  /** Whether the chosen slice is the one on screen; until it has come, there is nothing to measure. */
  get #isSeen() {
    return this.#reading.current?.index === this.#reading.index;
  }

  get #loading() {
    return t("viewer.loading", { number: this.#reading.index + 1 });
  }

  /** Set the start of a measurement, then its end elsewhere; a point is complete at once. */
  #set() {
    if (!this.#isSeen) return announce(this.#loading);
    this.#goTo(this.#at.row, this.#at.column); // within the slice that has come since
    if (!this.#marks.drawn) {
      this.#from = this.#at;
      this.#marks.start(this.#tool(), ...pointsOf(this.#tool(), this.#at, this.#at));
      this.#begun = this.#marks.drawn;
      if (this.#begun) announce(t("measure.started"));
    } else if (this.#isMine && (this.#at.row !== this.#from.row || this.#at.column !== this.#from.column)) this.#marks.end(0);
  }

  /** Take hold of the nearest handle of an own measurement on the slice, which the arrow keys then move. */
  #take() {
    if (!this.#isSeen) return announce(this.#loading);
    if (this.#marks.drawn) return;
    const near = this.#marks.near(...this.#place, Infinity);
    if (!near) return announce(t("measure.none-to-move"));
    this.#goTo(near.handle.row, near.handle.column);
    this.#from = this.#at;
    this.#marks.grab(this.#at);
    this.#begun = this.#marks.drawn;
    announce(t("measure.taken"));
  }
}
