// The reader's feedback on a finding: agree or disagree, stored at once by one click or key; then, if the reader wants,
// slices and a note; and take it back. Stored by the server, exported for training.

import { Problem, sendJson } from "./api.js";
import { announce } from "./announce.js";
import { el, icon } from "./element.js";
import { labelName } from "./labels.js";
import { parts, t } from "./messages.js";
import { problemBox } from "./site.js";
import { indicesOf, rangesOf } from "./slice_ranges.js";

/** How each verdict is shown, wherever it is; `words` is a key of the catalogue. */
export const VERDICTS = Object.freeze({
  agree: { icon: "check", words: "verdict.agree" },
  corrected: { icon: "close", words: "verdict.corrected" },
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
  return t(present ? `sight.${label}` : `sight.no-${label}`);
}

const words = ({ verdict, label, present }) => t(verdict === "agree" ? "feedback.agreed" : "feedback.disagreed", { sight: sightWords(label, present) });

/** What readers said, by `fetch`, while no answer of this reader is under way: what was fetched across one would undo it. */
export async function fetchBetween(controls, fetch) {
  const sends = () => controls.reduce((sum, one) => sum + one.sends, 0);
  for (;;) {
    await Promise.all(controls.map(({ settled }) => settled));
    const before = sends();
    const found = await fetch();
    if (sends() === before) return found;
  }
}

/** The controls of one finding. `context` has studyId, slices (their number), currentSlice(), onGiven(label, entry) and onFailed(label). */
export class FeedbackControls {
  #forget = () => {};
  sends = 0; // answers that were begun
  settled = Promise.resolve(); // once the last answer has arrived or failed

  constructor(finding, context, given) {
    this.finding = finding;
    this.context = context;
    this.node = el("div", { class: "feedback", dataset: { label: finding.label } });
    this.show(given);
  }

  /** Show what the server has by now, whoever gave it, but after a note that this reader writes; returns whether it is news. */
  take(given) {
    if (JSON.stringify(given) === JSON.stringify(this.given)) return false;
    this.given = given;
    if (this.#open) return true; // shown when the note is closed
    const hadFocus = this.node.contains(document.activeElement);
    this.show(given);
    if (hadFocus) this.#rest();
    return true;
  }

  get #open() {
    return this.node.querySelector("form");
  }

  /** Agree or disagree, stored at once; what stands already stays as it is, with its slices and note. A note that is being written comes first. */
  give(verdict) {
    if (this.#open) this.#open.querySelector("textarea").focus();
    else this.#send(verdict, {}, () => this.given?.verdict !== verdict);
  }

  show(given) {
    this.given = given;
    const { label, present } = this.finding;
    const button = (verdict, act) => {
      const text = t(verdict === "agree" ? "feedback.agree" : "feedback.disagree", { sight: sightWords(label, (verdict === "agree") === present) });
      return el("button", { class: "small", "aria-pressed": String(given?.verdict === verdict), onclick: act }, icon(VERDICTS[verdict].icon), text);
    };
    const [agree, disagree] = ["agree", "corrected"].map((verdict) => button(verdict, () => this.give(verdict)));
    const more = given && [
      el("button", { class: "small quiet", onclick: () => this.#form(given) }, t(given.note || given.slices ? "feedback.edit" : "feedback.add")),
      el("button", { class: "small quiet", onclick: () => this.#send("withdrawn", {}, () => Boolean(this.given)) }, t("feedback.take-back")),
    ];
    const buttons = el("div", { class: "feedback-buttons", role: "group", tabindex: -1, "aria-label": t("feedback.yours", { label: labelName(label) }) }, agree, disagree, ...(more ?? []));
    this.node.replaceChildren(buttons, ...(given ? [this.#said(given)] : []));
  }

  /** Put the focus where no key changes an answer: a second Enter must not turn it round. */
  #rest() {
    this.node.querySelector("[role=group]").focus({ preventScroll: true });
  }

  #said(given) {
    const count = given.slices?.length ?? 0;
    const key = count > 0 ? "feedback.said-slices" : "feedback.said";
    const said = parts(key, { said: el("strong", { text: words(given) }), count, slices: rangesOf(given.slices ?? []), reader: given.by });
    return el("p", { class: `said said-${given.verdict}` }, said, given.note && el("q", { text: given.note }));
  }

  #form(given) {
    const { verdict } = given;
    const { label } = this.finding;
    const present = feedbackOn(this.finding, verdict).present;
    const note = el("textarea", { id: `note-${label}`, rows: 2, maxlength: 2000 });
    note.value = given.note ?? "";
    const marks = this.#marks(given);
    const title = t(verdict === "agree" ? "feedback.agree" : "feedback.disagree", { sight: sightWords(label, present) });
    const form = el(
      "form",
      { class: "feedback-form" },
      el("p", { class: "form-title", text: title }),
      present && marks.node,
      el("label", { for: note.id, text: t("feedback.note") }),
      note,
      el("div", { class: "feedback-buttons" }, el("button", { type: "submit", class: "main small" }, t("common.save")), el("button", { class: "small quiet", onclick: () => this.#close() }, t("common.cancel"))),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!present || marks.input.checkValidity()) this.#send(verdict, { note: note.value, slices: present ? marks.read() : null }, () => form.isConnected, form);
      else marks.input.reportValidity();
    });
    form.addEventListener("keydown", (event) => event.key === "Escape" && this.#close());
    const before = [note.value.trim(), marks.input.value];
    const isTyped = () => note.value.trim() !== before[0] || marks.input.value !== before[1];
    const ask = (event) => form.isConnected && isTyped() && event.preventDefault(); // what was typed is not lost without a word
    window.addEventListener("beforeunload", ask);
    this.#forget = () => window.removeEventListener("beforeunload", ask);
    this.node.replaceChildren(form);
    (present ? marks.input : note).focus();
  }

  /** Show what stands, in the place of a note. */
  #close() {
    const hadFocus = this.node.contains(document.activeElement);
    this.#forget();
    this.show(this.given);
    if (hadFocus) this.#rest();
  }

  /** The slices on which it is seen, typed as "12-15, 18", or the current one added. */
  #marks(given) {
    const { label } = this.finding;
    const { slices: count } = this.context;
    const input = el("input", { id: `slices-${label}`, type: "text", inputmode: "numeric", autocomplete: "off", placeholder: t("feedback.slices-example") });
    input.value = rangesOf(given.slices ?? []);
    const check = () => input.setCustomValidity(indicesOf(input.value, count) ? "" : t("feedback.slices-wrong", { most: count }));
    input.addEventListener("input", check);
    const add = () => {
      input.value = rangesOf([...(indicesOf(input.value, count) ?? []), this.context.currentSlice()]);
      check();
    };
    const here = el("button", { class: "small quiet", onclick: add }, t("feedback.add-slice"));
    const node = el("div", { class: "marks" }, el("label", { for: input.id, text: t("feedback.seen-on") }), el("div", { class: "marks-row" }, input, here));
    const read = () => {
      const indices = indicesOf(input.value, count);
      return indices?.length ? indices : null;
    };
    return { node, input, read };
  }

  /** Send an answer after those under way, if it is `wanted` by then: two at once could arrive in either order. */
  #send(verdict, extra, wanted, form = null) {
    const act = () => wanted() && this.#post(verdict, extra, form);
    this.sends += 1;
    this.settled = this.settled.then(act, act);
  }

  async #post(verdict, extra, form) {
    const { label } = this.finding;
    const body = feedbackOn(this.finding, verdict, extra);
    try {
      const entry = (await sendJson("POST", `/studies/${this.context.studyId}/feedback`, body)) ?? { ...body, by: t("feedback.you") };
      const standing = verdict === "withdrawn" ? undefined : entry;
      this.given = standing;
      if (!this.#open || this.#open === form) this.#close(); // another note, begun meanwhile, stays
      this.context.onGiven(label, standing);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.node.querySelector(".problem")?.remove();
      this.node.append(problemBox(error));
      this.context.onFailed(label); // a key answers for a finding that may be closed
      announce(error.message);
    }
  }
}
