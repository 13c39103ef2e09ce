// The slab on the stage: which slices it needs, its pixels once all of them are there, and the words that tell it from a slice.

import { find } from "./element.js";
import { t } from "./messages.js";
import { Blender } from "./blend.js";
import { thisTab } from "./storage.js";
import { firstSlab, isThin, MODES, slabAt, slabName, stepOf, typedThickness } from "./slab.js";

const CHOICE = "hemoscope.slab"; // of thin series: a thick one always opens as it is

function keptChoice() {
  const [mode, mm] = (thisTab.get(CHOICE) ?? "").split(" ");
  return MODES.includes(mode) && typedThickness(mm) ? { mode, mm: typedThickness(mm) } : null;
}

export class SlabView {
  #positions = [];
  #step = null;
  #blender = new Blender();
  #found = { key: "", members: [] };
  #made = null; // {key, pixels}: a slab is computed once, however often its slice is painted
  mode = "off";
  mm = 5;
  measuring = false; // measurements are of the stored slice, so that is what is seen meanwhile

  /** `onChange()` is called when the reader chooses another slab. */
  constructor(onChange) {
    this.onChange = onChange;
  }

  open(geometry) {
    this.#positions = geometry.positions_mm;
    this.#step = stepOf(geometry);
    Object.assign(this, (isThin(this.#step) && keptChoice()) || firstSlab(this.#step));
    for (const id of ["#slab-mode", "#slab-mm"]) find(id).disabled = this.#step === null;
    if (this.#step === null) find("#slab-mode").title = t("slab.not-possible");
    this.#showControls();
  }

  choose({ mode = this.mode, mm = this.mm }) {
    if (this.#step === null) return;
    Object.assign(this, { mode, mm: typedThickness(mm) ?? this.mm });
    if (isThin(this.#step)) thisTab.set(CHOICE, `${this.mode} ${this.mm}`);
    this.#showControls();
    this.onChange();
  }

  nextMode() {
    this.choose({ mode: MODES[(MODES.indexOf(this.mode) + 1) % MODES.length] });
  }

  setMeasuring(measuring) {
    if (this.measuring === measuring) return;
    this.measuring = measuring;
    this.onChange();
  }

  #showControls() {
    find("#slab-mode").value = this.mode;
    find("#slab-mm").value = this.mm;
  }

  #members(index) {
    if (this.mode === "off") return [];
    const key = [this.mm, index].join();
    if (this.#found.key !== key) this.#found = { key, members: slabAt(this.#positions, this.#step, index, this.mm) };
    return this.#found.members;
  }

  /** The slices that a slab at `index` needs, nearest first. */
  needed(index) {
    return this.#members(index).map((member) => member.index);
  }

  /** The slab's pixels at `index` from a stack of slices; null for the slice itself. Says on the stage which of the two it is, and why. */
  pixels(index, stack) {
    const members = this.#members(index);
    const slices = members.map((member) => stack.get(member.index)?.hounsfield);
    const complete = members.length > 1 && !this.measuring && slices.every(Boolean);
    this.#say(members, complete, members.find((member) => stack.hasFailed(member.index)));
    if (!complete) return null;
    const key = [this.mode, this.mm, index].join();
    if (this.#made?.key !== key) this.#made = { key, pixels: this.#blender.blended(this.mode, members, slices) };
    return this.#made.pixels;
  }

  #say(members, complete, failed) {
    const words = this.#words(members, complete, failed);
    find("#slab-name").textContent = words[0] ?? "";
    find("#slab-caution").textContent = words[1] ?? "";
    find("#slab-again").hidden = words[2] !== true;
    find("#view").dataset.slab = complete ? `${this.mode} ${this.mm}` : "";
  }

  /** [name, caution, whether a lost slice may be requested again]. */
  #words(members, complete, failed) {
    if (members.length === 0) return [];
    if (members.length === 1) return [t("slab.off"), t("slab.thicker", { mm: this.mm })];
    const name = slabName(this.mode, members);
    if (complete) return [name, t("slab.caution")];
    if (this.measuring) return [t("slab.off"), t("slab.measuring")];
    if (failed) return [t("slab.off"), t("slab.failed", { slab: name, number: failed.index + 1 }), true];
    return [t("slab.off"), t("slab.loading", { slab: name })];
  }
}

/** The select, the typed thickness, and what they do. */
export function wireSlab(slab) {
  find("#slab-again").addEventListener("click", () => slab.onChange());
  find("#slab-mode").addEventListener("change", (event) => {
    slab.choose({ mode: event.target.value });
    event.target.blur(); // the arrows scroll slices again
  });
  find("#slab-mm").addEventListener("change", (event) => {
    slab.choose({ mm: event.target.value });
    event.target.value = slab.mm;
  });
  find("#slab-mm").addEventListener("keydown", (event) => ["Enter", "Escape"].includes(event.key) && event.target.blur());
}

/** The slab's keys, for the page's table. */
export function slabKeys(slab) {
  return [
    { keys: ["s"], shown: ["s"], does: t("keys.slab"), act: () => slab.nextMode() },
    { keys: [","], shown: [","], does: t("keys.slab-thinner"), act: () => slab.choose({ mm: slab.mm - 1 }) },
    { keys: ["."], shown: ["."], does: t("keys.slab-thicker"), act: () => slab.choose({ mm: slab.mm + 1 }) },
  ];
}
