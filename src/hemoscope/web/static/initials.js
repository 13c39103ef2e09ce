// A user's own initials, by which other readers see who reads and who has reviewed a study.

import { Problem, sendJson } from "./api.js";
import { el } from "./element.js";
import { t } from "./messages.js";

/** The user's name as a button that opens a dialog; `onSet(initials)` is called once the server has them. */
export function initialsButton({ name }, initials, onSet) {
  return el("button", { class: "quiet user-name", title: t("initials.choose"), "aria-label": t("initials.choose-label", { initials, name }), onclick: () => openDialog(name, initials, onSet) }, el("span", { class: "own-initials", text: initials }), el("span", { text: name }));
}

function openDialog(name, initials, onSet) {
  const input = el("input", { id: "initials", type: "text", maxlength: 4, required: true, value: initials, autocomplete: "off", spellcheck: "false" });
  const trouble = el("p", { class: "remedy", role: "alert" });
  const form = el("form", { class: "inline initials-form" }, el("label", { for: "initials", text: t("initials.of", { name }) }), input, el("button", { type: "submit", class: "main" }, t("common.save")));
  const closing = el("button", { class: "quiet", onclick: () => dialog.close() }, t("common.close"));
  const head = el("div", { class: "dialog-head" }, el("h2", { id: "initials-title", text: t("initials.title") }), closing);
  const why = el("p", { text: t("initials.why") });
  const dialog = el("dialog", { "aria-labelledby": "initials-title" }, head, el("div", { class: "dialog-body" }, why, form, trouble));
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const site = await sendJson("PUT", "/site/initials", { initials: input.value.trim() });
      dialog.close();
      onSet(site.initials);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      trouble.textContent = `${error.message} ${error.remedy}`;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  input.select();
}
