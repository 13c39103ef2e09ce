// What every page has: who is logged in, the site's settings, dialogs and messages.

import { getSite, Problem, sendJson } from "./api.js";
import { el, find, icon } from "./element.js";
import { initialsButton } from "./initials.js";
import { t, unlessTranslated } from "./messages.js";

/** The site's settings; shows who is logged in. */
export async function loadSite() {
  const site = await getSite();
  showUser(site);
  return site;
}

function showUser(site) {
  const place = find("#user");
  if (!place || !site.user || place.childElementCount > 0) return;
  const name = el("span", { class: "user-name", text: site.user.name });
  place.replaceChildren(site.login_required ? ownName(site) : name);
  if (site.login_required) place.append(el("button", { class: "quiet", onclick: logOut }, t("common.log-out")));
}

function ownName(site) {
  const button = initialsButton(site.user, site.initials, (initials) => {
    site.initials = initials;
    button.replaceWith(ownName(site));
  });
  return button;
}

const farewells = [];

/** Call `leave` before the session ends, after which the server refuses what a page sends, and `stay` if it did not end. */
export const beforeLogOut = (leave, stay) => farewells.push({ leave, stay });

async function logOut() {
  await Promise.allSettled(farewells.map(({ leave }) => leave()));
  try {
    await sendJson("POST", "/logout");
    location.assign("/login");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) return; // it has ended, and the page goes to the login
    for (const { stay } of farewells) stay();
    showOpenSession(error);
  }
}

function showOpenSession({ detail, remedy }) {
  const again = () => [dialog.close(), logOut()];
  const buttons = [el("button", { onclick: again }, t("common.try-again")), el("button", { onclick: () => dialog.close() }, t("common.close"))];
  const box = problemBox({ detail: t("logout.failed", { why: detail }), remedy: `${remedy} ${t("logout.remedy")}` }, ...buttons);
  const dialog = el("dialog", { "aria-label": t("logout.title"), onclose: () => dialog.remove() }, box);
  document.body.append(dialog);
  dialog.showModal();
}

export const isAdmin = (site) => site.user.role === "admin";

/** Buttons with data-opens="#dialog" open it; every dialog closes by its own button, Escape or a click outside it. */
export function wireDialogs() {
  for (const opener of document.querySelectorAll("[data-opens]")) {
    opener.addEventListener("click", () => find(opener.dataset.opens).showModal());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("[data-closes]")?.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
}

/** An error in full: what is wrong, and what to do. */
export function problemBox(problem, ...actions) {
  const remedy = problem.remedy && el("p", { class: "remedy", text: problem.remedy });
  const words = el("div", {}, el("p", { class: "cause", text: problem.detail ?? problem.message }), remedy || null);
  return el("div", { class: "problem", role: "alert" }, icon("failed"), words, ...actions);
}

/** A problem of the list, which alone is asked for again by itself: while live changes do not come, every few seconds. */
export const polled = (problem) => (problem.code === "unreachable" ? { detail: problem.detail, remedy: t("worklist.unreachable-remedy") } : problem);

/** Why a study failed, and what to do, each as a sentence. */
export function failureOf(entry) {
  const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
  const own = (part, english) => sentence(unlessTranslated(`refused.${entry.error_code}${part}`, english));
  return { detail: own("", entry.error_message ?? t("study.failed-why")), remedy: own(".remedy", entry.error_cure || t("study.failed-remedy")), code: entry.error_code ?? "" };
}

/** The files that were not accepted, each reason once with its count: [[message, count], ...]. */
export function refusals(rejected) {
  const counts = new Map();
  for (const { message } of rejected) counts.set(message, (counts.get(message) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}
