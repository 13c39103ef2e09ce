// The reader's feedback on a finding: agree or disagree, with slices and a note, and take it back. Stored by the server,
// exported for training.

import { Problem, sendJson } from "./api.js";
import { el, icon } from "./element.js";
import { labelName } from "./labels.js";
import { problemBox } from "./site.js";
import { indicesOf, rangesOf } from "./slice_ranges.js";

/** How each verdict is shown, wherever it is. */
export const VERDICTS = Object.freeze({
  agree: { icon: "check", words: "Reader agrees" },
  corrected: { icon: "close", words: "Reader disagrees" },
});

/** What stands of each label: its newest entry, none if that took the feedback back. The list is oldest first. */
export function latestByLabel(list) {
  const newest = new Map(list.map((entry) => [entry.label, entry]));
  return new Map([...newest].filter(([, entry]) => entry.verdict !== "withdrawn"));
}

/** What to send for a verdict on a finding; a disagreement inverts the finding. */
export function feedbackOn(finding, verdict, { slices = null, note = "" } = {}) {
  const present = verdict === "corrected" ? !finding.present : finding.present;
  return { label: finding.label, verdict, present, slices: present ? slices : null, note: note.trim() };
}

/** "hemorrhage", "no hemorrhage", "subdural", "no subdural": what a verdict says is, or is not, there. */
export function sightWords(label, present) {
  const name = label === "any" ? "hemorrhage" : labelName(label).toLowerCase();
  return present ? name : `no ${name}`;
}

const words = (entry) => `${entry.verdict === "agree" ? "Agreed" : "Disagreed"}: ${sightWords(entry.label, entry.present)}`;

/** The controls of one finding. `context` has studyId, slices (their number), currentSlice() and onGiven(label, entry). */
export class FeedbackControls {
  constructor(finding, context, given) {
    this.finding = finding;
    this.context = context;
    this.node = el("div", { class: "feedback", dataset: { label: finding.label } });
    this.show(given);
  }

  show(given) {
    const { label, present } = this.finding;
    const button = (verdict, act) => {
      const text = `${verdict === "agree" ? "Agree" : "Disagree"}: ${sightWords(label, (verdict === "agree") === present)}`;
      return el("button", { type: "button", class: "small", "aria-pressed": given?.verdict === verdict, onclick: act }, icon(VERDICTS[verdict].icon), text);
    };
    const agree = button("agree", () => this.#send("agree", { note: "" }));
    const disagree = button("corrected", () => this.#form("corrected"));
    const more = given && [
      el("button", { type: "button", class: "small quiet", onclick: () => this.#form(given.verdict, given) }, given.note || given.slices ? "Edit" : "Add slices or a note"),
      el("button", { type: "button", class: "small quiet", onclick: () => this.#send("withdrawn", {}) }, "Take back"),
    ];
    const buttons = el("div", { class: "feedback-buttons", role: "group", "aria-label": `Your reading of ${labelName(label)}` }, agree, disagree, ...(more ?? []));
    this.node.replaceChildren(buttons, ...(given ? [this.#said(given)] : []));
  }

  #said(given) {
    const where = given.slices?.length ? `, ${given.slices.length > 1 ? "slices" : "slice"} ${rangesOf(given.slices)}` : "";
    return el("p", { class: `said said-${given.verdict}` }, el("strong", { text: words(given) }), `${where} (${given.by})`, given.note && el("q", { text: given.note }));
  }

  #form(verdict, given) {
    const { label } = this.finding;
    const present = feedbackOn(this.finding, verdict).present;
    const note = el("textarea", { id: `note-${label}`, rows: 2, maxlength: 2000 });
    note.value = given?.note ?? "";
    const marks = this.#marks(given);
    const title = `${verdict === "agree" ? "Agree" : "Disagree"}: ${sightWords(label, present)}`;
    const form = el(
      "form",
      { class: "feedback-form" },
      el("p", { class: "form-title", text: title }),
      present && marks.node,
      el("label", { for: note.id, text: "Note (no names)" }),
      note,
      el("div", { class: "feedback-buttons" }, el("button", { type: "submit", class: "main small" }, "Save"), el("button", { type: "button", class: "small quiet", onclick: () => this.show(given) }, "Cancel")),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!present || marks.input.checkValidity()) this.#send(verdict, { note: note.value, slices: present ? marks.read() : null });
      else marks.input.reportValidity();
    });
    this.node.replaceChildren(form);
    (present ? marks.input : note).focus();
  }

  /** The slices on which it is seen, typed as "12-15, 18", or the current one added. */
  #marks(given) {
    const { label } = this.finding;
    const { slices: count } = this.context;
    const input = el("input", { id: `slices-${label}`, type: "text", inputmode: "numeric", autocomplete: "off", placeholder: "12-15, 18" });
    input.value = rangesOf(given?.slices ?? []);
    const check = () => input.setCustomValidity(indicesOf(input.value, count) ? "" : `Give slices from 1 to ${count}, such as 12-15, 18`);
    input.addEventListener("input", check);
    const add = () => {
      input.value = rangesOf([...(indicesOf(input.value, count) ?? []), this.context.currentSlice()]);
      check();
    };
    const here = el("button", { type: "button", class: "small quiet", onclick: add }, "Add this slice");
    const node = el("div", { class: "marks" }, el("label", { for: input.id, text: "Seen on slices" }), el("div", { class: "marks-row" }, input, here));
    const read = () => {
      const indices = indicesOf(input.value, count);
      return indices?.length ? indices : null;
    };
    return { node, input, read };
  }

  async #send(verdict, extra) {
    const body = feedbackOn(this.finding, verdict, extra);
    try {
      const entry = (await sendJson("POST", `/studies/${this.context.studyId}/feedback`, body)) ?? { ...body, by: "you" };
      const standing = verdict === "withdrawn" ? undefined : entry;
      this.show(standing);
      this.context.onGiven(this.finding.label, standing);
      this.node.querySelector("[aria-pressed=true], button")?.focus();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.node.append(problemBox(error));
    }
  }
}
