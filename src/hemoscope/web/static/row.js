// One study as a row of the worklist.

import { el, icon } from "./element.js";
import { duration, language, secondsSince } from "./format.js";
import { VERDICTS } from "./feedback.js";
import { LABELS, labelName, labelShort, stateWord, suspectedTypes, urgencyWord } from "./labels.js";
import { parts, t } from "./messages.js";
import { failureOf } from "./site.js";

export const studyName = (entry) => entry.identity?.name || t("row.study", { id: entry.study_id.slice(0, 8) });

function urgencyCell(entry) {
  const kind = entry.state === "failed" ? "failed" : (entry.urgency ?? "unknown");
  const word = urgencyWord(entry.state === "failed" ? "failed" : entry.urgency);
  const partial = entry.unread && kind !== "incomplete" && el("span", { class: "urgency urgency-incomplete urgency-also" }, icon("incomplete"), urgencyWord("incomplete"));
  return el("td", { class: "cell-urgency" }, el("span", { class: `urgency urgency-${kind}` }, icon(kind), word), partial);
}

function chip(label, entry) {
  const doubted = entry.not_established.includes(label);
  const verdict = entry.verdicts?.[label];
  const title = [doubted ? t("row.not-established-why", { label: labelName(label) }) : labelName(label), verdict && t(VERDICTS[verdict].words)].filter(Boolean).join(". ");
  const classes = ["chip", doubted && "chip-doubted", verdict && `chip-${verdict}`].filter(Boolean);
  return el("li", { class: classes.join(" "), title }, verdict && icon(VERDICTS[verdict].icon), el("span", { text: labelName(label) }), doubted && el("span", { class: "unseen", text: ` (${t("row.not-established")})` }));
}

function nothingWords({ urgency }) {
  if (urgency === "unsure") return t("row.unsure");
  return t(urgency === "incomplete" ? "row.nothing-partial" : "row.nothing");
}

function suspectedCell(entry) {
  if (entry.state === "failed") {
    const { detail, remedy } = failureOf(entry);
    return el("td", { class: "cell-suspected" }, el("p", { class: "cause", text: detail }), remedy && el("p", { class: "remedy", text: remedy }));
  }
  if (entry.state !== "done") return el("td", { class: "cell-suspected faint", text: "–" });
  const types = suspectedTypes(entry);
  const found = types.length > 0 ? el("ul", { class: "chips" }, types.map((label) => chip(label, entry))) : el("p", { class: "faint", text: nothingWords(entry) });
  const partial = entry.unread || entry.urgency === "incomplete";
  const reason = partial && el("p", { class: "partial", text: entry.unread ? t("row.partial-why", { reason: entry.unread }) : t("row.partial") });
  return el("td", { class: "cell-suspected" }, found, reason);
}

function sameCell({ same_as: first }, address) {
  return first && el("p", { class: "same" }, parts("row.same", { study: el("a", { href: `/studies/${first}${address}`, text: first.slice(0, 8) }) }));
}

function nameCell(entry, address) {
  const link = el("a", { class: "row-link", href: `/studies/${entry.study_id}${address}`, text: studyName(entry) });
  return el("th", { scope: "row", class: "cell-study" }, link, entry.identity?.id && el("span", { class: "faint", text: ` ${entry.identity.id}` }), entry.reading > 1 && el("span", { class: "faint", text: ` ${t("row.reading", { number: entry.reading })}` }), sameCell(entry, address));
}

const age = (iso) => (iso ? duration(secondsSince(iso)) : t("row.age-unknown"));

function timeCell(iso, name, exactShown = true) {
  const exact = iso && exactShown ? new Date(iso).toLocaleString(language()) : ""; // a scan's time is rounded if identity is not shown
  return el("td", { class: `cell-time ${name}`, title: exact, dataset: iso ? { since: iso } : {}, text: age(iso) });
}

const named = (names, entry) => el("abbr", { class: "readers", title: names.join(", "), text: names.map((name) => entry.initials?.[name] ?? name).join(" ") });

/** What readers say of each finding: of two types one may be there and the other not. */
function feedbackWords(entry) {
  const given = LABELS.filter((label) => entry.verdicts?.[label]);
  if (given.length === 0) return null;
  const word = (label) => {
    const present = entry.suspected.includes(label) === (entry.verdicts[label] === "agree");
    return el("span", { class: `said-of said-of-${entry.verdicts[label]}`, title: t(present ? "row.said-yes-why" : "row.said-no-why", { label: labelName(label) }) }, t(present ? "row.said-yes" : "row.said-no", { label: labelShort(label) }));
  };
  const list = given.flatMap((label, place) => [place > 0 && ", ", word(label)]);
  return el("span", { class: "reviewed reviewed-findings" }, el("span", {}, list), entry.readers?.length > 0 && named(entry.readers, entry));
}

function reviewWords(entry) {
  const names = (entry.reviews ?? []).map(({ by }) => by);
  return names.length > 0 && el("span", { class: "reviewed" }, icon("check"), t("row.reviewed"), named(names, entry));
}

/** Who reads a study at this moment; `me` is null where everybody is the one local user. */
function claimWords({ claim, initials }, me) {
  if (!claim || me === null) return null;
  const name = () => el("abbr", { class: "initials", title: claim.by, text: initials?.[claim.by] ?? claim.by });
  const words = claim.by === me ? t("readers.you") : parts("row.being-read", { name: name() });
  return el("span", { class: "claimed" }, words);
}

function stateCell(entry, me) {
  const busy = ["reading", "scoring"].includes(entry.state);
  const known = busy && entry.stage_total > 0;
  const words = known ? t("row.progress", { state: stateWord(entry.state), done: entry.stage_done, total: entry.stage_total }) : stateWord(entry.state);
  const said = [reviewWords(entry), feedbackWords(entry)].filter(Boolean);
  const bar = busy && el("progress", { "aria-label": words, ...(known ? { max: entry.stage_total, value: entry.stage_done } : {}) });
  return el("td", { class: `cell-state state-${entry.state}` }, claimWords(entry, me), said.length > 0 ? said : el("span", { text: words }), bar);
}

/** The row of an entry; `onDelete` is given to admins, `address` is the list's query, `me` the user's name, null for the one local user. */
export function rowOf(entry, { onDelete, address, me = null }) {
  const remove = onDelete && el("button", { class: "quiet row-delete", "aria-label": t("row.delete-study", { study: studyName(entry) }), title: t("row.delete"), onclick: () => onDelete(entry) }, icon("close"));
  const kind = entry.state === "failed" ? "failed" : (entry.urgency ?? "unknown");
  return el(
    "tr",
    { class: `row row-${kind}`, dataset: { study: entry.study_id, state: entry.state } },
    urgencyCell(entry),
    suspectedCell(entry),
    nameCell(entry, address),
    timeCell(entry.acquired_at, "cell-age", Boolean(entry.identity)),
    timeCell(entry.received_at, "cell-waiting"),
    el("td", { class: "cell-slices", title: t("count.slices", { count: entry.instances }), text: entry.instances || "" }),
    stateCell(entry, me),
    el("td", { class: "cell-actions" }, remove),
  );
}

/** Update the ages in all rows. */
export function tickAges(table) {
  for (const cell of table.querySelectorAll("[data-since]")) cell.textContent = age(cell.dataset.since);
}

/** The announcement of a changed study for screen readers. */
export function spoken(entry) {
  const types = suspectedTypes(entry).map(labelName).join(", ");
  return entry.state === "done" ? t("row.spoken", { study: studyName(entry), urgency: urgencyWord(entry.urgency), found: types || t("row.nothing") }) : "";
}

