// The numbers of the slice under the pointer, in a small box beside the strip.

import { el } from "./element.js";
import { probability } from "./format.js";
import { LABELS, labelShort } from "./labels.js";
import { t } from "./messages.js";

export class StripHover {
  node = el("div", { class: "strip-hover", "aria-hidden": "true", hidden: true });

  /** `share` is the pointer's height on the strip, 0 above and 1 below. */
  show(index, { probabilities, labels, thresholds }, share) {
    const row = probabilities?.[index];
    if (!row) return this.hide();
    const line = (label) => {
      const value = row[labels.indexOf(label)];
      const reached = value >= thresholds?.[label];
      return [el("dt", { text: labelShort(label) }), el("dd", { class: reached ? "reached" : null, dataset: { label }, text: probability(value) })];
    };
    this.node.replaceChildren(el("p", { text: t("viewer.slice", { number: index + 1 }) }), el("dl", {}, LABELS.flatMap(line)));
    const below = share > 0.5; // the box stays on the strip's height
    Object.assign(this.node.style, { top: below ? "auto" : `${share * 100}%`, bottom: below ? `${(1 - share) * 100}%` : "auto" });
    this.node.hidden = false;
  }

  hide() {
    this.node.hidden = true;
  }
}
