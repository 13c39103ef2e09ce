// The reader's feedback on a finding: agree, or correct it, with a note. Stored by the server, exported for training.

import { Problem, sendJson } from "./api.js";
import { el, icon } from "./element.js";
import { labelName } from "./labels.js";
import { problemBox } from "./site.js";

/** The newest entry for each label, from a list that is oldest first. */
export function latestByLabel(list) {
  return new Map(list.map((entry) => [entry.label, entry]));
}

/** What to send for a verdict on a finding; a correction inverts the finding. */
export function feedbackOn(finding, verdict, { slices = null, note = "" } = {}) {
  const present = verdict === "agree" ? finding.present : !finding.present;
  return { label: finding.label, verdict, present, slices: present ? slices : null, note: note.trim() };
}

/** The slices marked before and one more, in order. */
export const withSlice = (slices, slice) => [...new Set([...(slices ?? []), slice])].sort((a, b) => a - b);

function words(entry) {
  const name = labelName(entry.label).toLowerCase();
  if (entry.verdict === "agree") return `Agreed: ${entry.present ? name : `no ${name}`}`;
  return `Corrected: ${entry.present ? name : `no ${name}`}`;
}

/** The controls of one finding. `context` has studyId, currentSlice() and onGiven(entry). */
export class FeedbackControls {
  constructor(finding, context, given) {
    this.finding = finding;
    this.context = context;
    this.node = el("div", { class: "feedback", dataset: { label: finding.label } });
    this.show(given);
  }

  show(given) {
    const name = labelName(this.finding.label);
    const opposite = this.finding.present ? "not present" : "present";
    const agree = el("button", { type: "button", class: "small", "aria-pressed": given?.verdict === "agree", onclick: () => this.#send("agree", { note: "" }) }, icon("check"), "Agree");
    const correct = el("button", { type: "button", class: "small", "aria-pressed": given?.verdict === "corrected", onclick: () => this.#form("corrected") }, icon("edit"), `Correct: ${opposite}`);
    const note = given && el("button", { type: "button", class: "small quiet", onclick: () => this.#form(given.verdict, given) }, given.note ? "Edit note" : "Add note");
    const buttons = el("div", { class: "feedback-buttons", role: "group", "aria-label": `Your reading of ${name}` }, agree, correct, note);
    this.node.replaceChildren(buttons, ...(given ? [this.#said(given)] : []));
  }

  #said(given) {
    const where = given.slices?.length ? `, slice ${given.slices.map((index) => index + 1).join(", ")}` : "";
    return el("p", { class: "said" }, el("strong", { text: words(given) }), `${where} (${given.by})`, given.note && el("q", { text: given.note }));
  }

  #form(verdict, given) {
    const present = feedbackOn(this.finding, verdict).present;
    const id = `note-${this.finding.label}`;
    const note = el("textarea", { id, rows: 2, maxlength: 2000 });
    note.value = given?.note ?? "";
    const here = el("input", { type: "checkbox", id: `here-${this.finding.label}` });
    const slice = this.context.currentSlice();
    const onSlice = present && el("label", { class: "check", for: here.id }, here, ` Seen on slice ${slice + 1}`);
    const send = () => this.#send(verdict, { note: note.value, slices: here.checked ? withSlice(given?.slices, slice) : (given?.slices ?? null) });
    const title = `${verdict === "agree" ? "Agree" : "Correct"}: ${labelName(this.finding.label)} is ${present ? "present" : "not present"}`;
    const form = el(
      "form",
      { class: "feedback-form" },
      el("p", { class: "form-title", text: title }),
      onSlice,
      el("label", { for: id, text: "Note (no names)" }),
      note,
      el("div", { class: "feedback-buttons" }, el("button", { type: "submit", class: "main small" }, "Save"), el("button", { type: "button", class: "small quiet", onclick: () => this.show(given) }, "Cancel")),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send();
    });
    this.node.replaceChildren(form);
    note.focus();
  }

  async #send(verdict, extra) {
    const body = feedbackOn(this.finding, verdict, extra);
    try {
      const entry = await sendJson("POST", `/studies/${this.context.studyId}/feedback`, body);
      this.show(entry ?? { ...body, by: "you" });
      this.context.onGiven(entry ?? body);
      this.node.querySelector("[aria-pressed=true]")?.focus();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.node.append(problemBox(error));
    }
  }
}
