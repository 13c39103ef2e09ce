// One plane beside the stack: its picture in true proportions, its sides, and the cross-hair.

import { el } from "./element.js";
import { drawCrossHair } from "./cross_hair.js";
import { focusByKeyOnly, wheelSteps } from "./gestures.js";
import { isCommand } from "./keys.js";
import { t } from "./messages.js";
import { frameOf, inPlane, PLANES, underPlane } from "./reformat.js";
import { sheetOf } from "./sheet.js";
import { FITTED, placement } from "./view.js";
import { paint, pixelTable } from "./window.js";

const WHEEL_MM = 2;
const FAST = 5; // steps with Shift

export class Plane {
  #volume;
  #frame;
  #acts;
  #canvas = el("canvas", { role: "application", tabindex: 0 }); // a screen reader leaves it the arrow keys
  #sheet;
  #cut = null;
  #table = null;
  #windowed = "";
  #point = null;
  #asked = null; // the point whose plane the worker is cutting
  #again = false;
  #sizes;
  #steps = wheelSteps();

  /** `ready()` says whether there are slices to cut; `ask(point)` makes the worker answer with arrived(); `onPoint(point)` receives where the reader points, `onStep(axis, steps)` how the arrow keys move the cross-hair. */
  constructor(name, volume, acts) {
    this.name = name;
    this.#volume = volume;
    this.#frame = frameOf(volume, name);
    this.#acts = acts;
    this.#sheet = sheetOf(this.#frame.columns, this.#frame.rows);
    const [left, right] = PLANES[name].letters;
    const letter = (edge, text) => el("span", { class: `mark mark-${edge}`, text });
    this.node = el("div", { class: "plane", dataset: { plane: name } }, this.#canvas, el("p", { class: "corner corner-tl", text: t(`planes.${name}`) }), letter("left", left), letter("right", right), letter("top", "H"), letter("bottom", "F"));
    this.#canvas.setAttribute("aria-label", t(`planes.${name}-label`));
    this.#sizes = new ResizeObserver(() => this.#draw());
    this.#sizes.observe(this.node);
    this.node.addEventListener("pointerdown", (event) => this.#follow(event));
    this.node.addEventListener("pointermove", (event) => event.buttons === 1 && this.#follow(event));
    this.#canvas.addEventListener("keydown", (event) => this.#press(event));
    focusByKeyOnly(this.#canvas);
    this.node.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  close() {
    this.#sizes.disconnect();
  }

  /** Show the plane through a point, with the reading's window. */
  show(point, { window, inverted }) {
    const windowed = `${window.center}/${window.width}/${inverted}`;
    if (windowed !== this.#windowed) {
      this.#table = pixelTable(window.center, window.width, inverted);
      this.#windowed = windowed;
      this.#paint();
    }
    const { fixed } = PLANES[this.name];
    const moved = this.#point?.[fixed] !== point[fixed];
    this.#point = point;
    if (moved || !this.#cut) this.refresh();
    this.#draw();
  }

  /** Cut again: at most one plane is in work, so that a fast scroll never queues. */
  refresh() {
    this.#again = this.#asked !== null;
    if (this.#again || !this.#point || !this.#acts.ready()) return;
    this.#asked = this.#point;
    this.#acts.ask(this.#point);
  }

  arrived(cut) {
    this.#cut = cut;
    this.#asked = null;
    this.#paint();
    this.node.dataset.of = cut.of; // slices
    if (this.#again) this.refresh();
    else this.node.dataset.drawn = this.#point[PLANES[this.name].fixed].toFixed(2); // which plane is seen
  }

  #paint() {
    if (!this.#cut || !this.#table) return;
    paint(this.#cut.hounsfield, this.#table, this.#sheet.pixels);
    this.#sheet.context.putImageData(this.#sheet.image, 0, 0);
    this.#draw();
  }

  #place() {
    const { width, height } = this.node.getBoundingClientRect();
    const image = { rows: this.#frame.rows, columns: this.#frame.columns, rowSize: 1, columnSize: 1 };
    return { width, height, picture: placement(FITTED, { width, height }, image) };
  }

  #draw() {
    const { width, height, picture } = this.#place();
    const ratio = devicePixelRatio || 1;
    Object.assign(this.#canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const context = this.#canvas.getContext("2d", { alpha: false });
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.drawImage(this.#sheet.canvas, picture.left, picture.top, picture.width, picture.height);
    if (!this.#point) return;
    const { x, y } = inPlane(this.#volume, this.#frame, this.name, this.#point);
    drawCrossHair(context, { x: picture.left + x * picture.scale, y: picture.top + y * picture.scale }, { width, height });
  }

  /** Through the planes: away from the reader is to the front, or to the patient's right. */
  #wheel(event) {
    if (event.ctrlKey) return; // the browser zooms its page
    event.preventDefault();
    const steps = this.#steps(event);
    if (!this.#point || steps === 0) return;
    const { fixed } = PLANES[this.name];
    const next = [...this.#point];
    next[fixed] = Math.min(Math.max(next[fixed] - steps * WHEEL_MM, this.#volume.low[fixed]), this.#volume.high[fixed]);
    this.#acts.onPoint(next);
  }

  #press(event) {
    const { across } = PLANES[this.name];
    const [axis, direction] = { ArrowLeft: [across, -1], ArrowRight: [across, 1], ArrowUp: [2, 1], ArrowDown: [2, -1] }[event.key] ?? [];
    if (direction === undefined || isCommand(event)) return;
    event.preventDefault(); // the reading keys scroll with the arrows
    this.#acts.onStep(axis, direction * (event.shiftKey ? FAST : 1));
  }

  #follow(event) {
    const { left, top } = this.node.getBoundingClientRect();
    const { picture } = this.#place();
    const at = { x: (event.clientX - left - picture.left) / picture.scale, y: (event.clientY - top - picture.top) / picture.scale };
    const inside = at.x >= 0 && at.x <= this.#frame.columns && at.y >= 0 && at.y <= this.#frame.rows;
    if (inside && this.#point) this.#acts.onPoint(underPlane(this.#volume, this.#frame, this.name, at, this.#point));
  }
}
