// Each label's probability by slice, beside the stack: the cranial end on top, a line at the threshold, the current slice
// as a bar across. Click or drag to jump; for the keyboard and screen readers it is a slider.

import { el, svg } from "./element.js";
import { shortProbability } from "./format.js";
import { t } from "./messages.js";
import { StripHover } from "./strip_hover.js";
import { LABELS, labelName, labelShort } from "./labels.js";

/** A path of bars in a box of 1 x count, slice 0 at the bottom, of the slices that `keep` chooses. */
export function barsPath(values, keep) {
  const last = values.length - 1;
  return values
    .map((value, index) => (keep(value) ? `M0 ${last - index}h${value.toFixed(4)}v1h-${value.toFixed(4)}z` : ""))
    .join("");
}

/** The slice under a point at `share` of the strip's height from above. */
export function sliceAt(share, count) {
  return Math.min(Math.max(count - 1 - Math.floor(share * count), 0), count - 1);
}

function column(label, values, threshold) {
  const box = { viewBox: `0 0 1 ${values.length}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  const path = (name, keep) => svg("path", { class: name, d: barsPath(values, keep) });
  return svg(
    "svg",
    { class: "strip-column", ...box },
    path("below", (value) => value < threshold),
    path("above", (value) => value >= threshold),
    svg("line", { class: "threshold", x1: threshold, x2: threshold, y1: 0, y2: values.length }),
  );
}

export class Strip {
  #root;
  #geometry;
  #onSlice;
  #onLabel;
  #heads = new Map();
  #values = new Map();
  #hover = new StripHover();

  constructor(root, { onSlice, onLabel }) {
    this.#root = root;
    this.#onSlice = onSlice;
    this.#onLabel = onLabel;
  }

  /** Draw the whole strip from the study's geometry; without probabilities it only shows the position. */
  draw(geometry, notEstablished) {
    this.#geometry = geometry;
    const known = geometry.probabilities?.length === geometry.slices;
    const heads = el("div", { class: "strip-heads" }, LABELS.map((label) => this.#head(label, notEstablished)));
    const columns = known ? LABELS.map((label) => this.#column(label, notEstablished)) : [];
    this.cursor = el("div", { class: "strip-cursor" });
    this.body = el("div", { class: "strip-body", id: "strip-slider", tabindex: 0, role: "slider", "aria-label": t("strip.slice"), "aria-orientation": "vertical", "aria-valuemin": 1, "aria-valuemax": geometry.slices }, columns, this.cursor, this.#hover.node);
    this.#listen();
    const values = el("div", { class: "strip-values", "aria-hidden": "true" }, LABELS.map((label) => this.#value(label)));
    this.#root.replaceChildren(heads, this.body, values);
    this.#root.classList.toggle("strip-empty", !known);
  }

  #head(label, notEstablished) {
    const doubted = notEstablished.includes(label);
    const title = t(doubted ? "strip.head-not-established" : "strip.head", { label: labelName(label) });
    const head = el("button", { class: doubted ? "strip-head doubted" : "strip-head", title, "aria-label": title, "aria-pressed": "false", onclick: () => this.#onLabel(label) }, labelShort(label));
    this.#heads.set(label, head);
    return head;
  }

  #column(label, notEstablished) {
    const place = this.#geometry.labels.indexOf(label);
    const values = this.#geometry.probabilities.map((row) => row[place]);
    const drawn = column(label, values, this.#geometry.thresholds[label]);
    const doubted = notEstablished.includes(label) ? " doubted" : "";
    return el("div", { class: `strip-cell${doubted}`, dataset: { label } }, drawn);
  }

  #value(label) {
    const value = el("span", { class: "strip-value", dataset: { label } });
    this.#values.set(label, value);
    return value;
  }

  #listen() {
    const shareOf = (event) => {
      const { top, height } = this.body.getBoundingClientRect();
      return Math.min(Math.max((event.clientY - top) / height, 0), 1);
    };
    const sliceOf = (event) => sliceAt(shareOf(event), this.#geometry.slices);
    const jump = (event) => this.#onSlice(sliceOf(event));
    this.body.addEventListener("pointerdown", (event) => {
      this.body.setPointerCapture(event.pointerId);
      const { label } = event.target.closest(".strip-cell")?.dataset ?? {};
      if (label) this.#onLabel(label);
      jump(event);
    });
    this.body.addEventListener("pointermove", (event) => {
      if (event.buttons > 0) jump(event);
      if (event.pointerType !== "touch") this.#hover.show(sliceOf(event), this.#geometry, shareOf(event)); // a finger reads the numbers below
    });
    this.body.addEventListener("pointerleave", () => this.#hover.hide());
  }

  /** Mark the current slice, with its six numbers below. */
  showSlice(index) {
    const { slices, probabilities, labels, thresholds } = this.#geometry;
    this.cursor.style.top = `${((slices - 1 - index) / slices) * 100}%`;
    this.cursor.style.height = `${100 / slices}%`;
    this.body.setAttribute("aria-valuenow", index + 1);
    this.body.setAttribute("aria-valuetext", t("viewer.slice-of", { number: index + 1, total: slices }));
    for (const [label, node] of this.#values) {
      const value = probabilities?.[index]?.[labels.indexOf(label)];
      node.textContent = value === undefined ? "" : shortProbability(value);
      node.classList.toggle("reached", value >= thresholds?.[label]);
    }
  }

  showLabel(label) {
    for (const [name, head] of this.#heads) head.setAttribute("aria-pressed", name === label);
    for (const cell of this.body.querySelectorAll(".strip-cell")) cell.classList.toggle("chosen", cell.dataset.label === label);
  }
}
