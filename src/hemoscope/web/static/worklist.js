// The worklist: every study, most urgent first, live.

import { Problem, sendJson } from "./api.js";
import { announce } from "./announce.js";
import { Counts } from "./counts.js";
import { acceptDrops, isWanted } from "./drop.js";
import { el, find } from "./element.js";
import { listen } from "./events.js";
import { fetchList, Listing } from "./listing.js";
import { countWords, shownWords } from "./list_words.js";
import { Notifier } from "./notify.js";
import { fillHelp, listenToKeys } from "./keys.js";
import { t } from "./messages.js";
import { wireMore } from "./more.js";
import { addressOf, isFiltered, keepQuery, nextSort, pagesShown, parameters, readQuery } from "./query.js";
import { rowOf, spoken, studyName, tickAges } from "./row.js";
import { updateRows } from "./rows.js";
import { isAdmin, loadSite, polled, problemBox, wireDialogs } from "./site.js";
import { returnToPlace, wireSearchKeys } from "./way.js";
import { Uploads } from "./uploads.js";

const body = find("#studies tbody");
const query = readQuery();
const listing = new Listing(query);
const counts = new Counts(() => (listing.isCut ? parameters(query, { limit: 1 }) : null), showRenewed);
let admin = false;
let me = null; // the user's name; null where everybody is the one local user
let reloading = 0;
let loaded = false;
let asked = 0; // lists: an answer that is not the latest is of another query
const notifier = new Notifier(find("#notify"));

/** Fetch and show the list; returns whether it came, null if a later call shows it. */
async function reload() {
  const mine = (asked += 1);
  let came = false;
  try {
    const site = await loadSite(); // fetched again only if it failed before
    admin = isAdmin(site);
    me = site.login_required ? site.user.name : null;
    const [found] = await Promise.all([fetchList(query, pagesShown()), counts.renew()]);
    if (mine !== asked) return null;
    listing.take(found);
    loaded = true;
    find("#trouble").replaceChildren();
    came = true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (mine !== asked) return null;
    find("#trouble").replaceChildren(problemBox(polled(error), el("button", { onclick: reload }, t("common.try-again"))));
  }
  draw();
  return came;
}

function reloadSoon() {
  clearTimeout(reloading);
  reloading = setTimeout(reload, 250);
}

function draw() {
  const focused = document.activeElement?.closest?.("tr")?.dataset.study;
  const { sorted } = listing;
  const given = { onDelete: admin ? askToDelete : null, address: addressOf(query), me };
  updateRows(body, sorted.map((entry) => rowOf(entry, given)));
  if (focused && !body.contains(document.activeElement)) body.querySelector(`[data-study="${focused}"] .row-link`)?.focus();
  showWhat(sorted);
}

/** The list, or why there is none: before the first answer nobody knows whether there are studies. */
function showWhat(sorted) {
  const none = loaded && sorted.length === 0;
  find("#studies").hidden = sorted.length === 0;
  find("#loading").hidden = true;
  find("#empty").hidden = !none || isFiltered(query);
  find("#no-match").hidden = !none || !isFiltered(query);
  find("#more").hidden = !loaded || !listing.isCut;
  showCounts();
}

function showCounts() {
  find("#more-words").textContent = listing.isCut ? shownWords(listing) : "";
  find("#count").textContent = loaded ? countWords(listing, counts.unread) : "";
  document.title = `${counts.unread > 0 ? `(${counts.unread}) ` : ""}${t("common.page-title", { title: t("common.worklist") })}`;
}

/** The server has counted again; `total` is null if the list is complete. */
function showRenewed(total) {
  if (total !== null) listing.recount(total);
  showCounts();
}

function changed(entry) {
  if (!listing.isNews(entry)) return;
  notifier.tell(entry);
  const known = listing.entries.get(entry.study_id);
  counts.follow(known, entry);
  if (query.search) return reloadSoon(); // only the server knows which studies match
  listing.keep(entry);
  if (known && known.state !== entry.state) announce(spoken(entry));
  draw();
}

function gone(studyId) {
  listing.remove(studyId);
  counts.soon();
  draw();
}

function askToDelete(entry) {
  const dialog = find("#delete");
  find("#delete-name").textContent = studyName(entry);
  find("#delete-now").onclick = async () => {
    dialog.close();
    await attempt(() => sendJson("DELETE", `/studies/${entry.study_id}`), () => gone(entry.study_id));
  };
  dialog.showModal();
}

async function attempt(act, then) {
  try {
    await act();
    then();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    find("#trouble").replaceChildren(problemBox(error));
  }
}

function moveFocus(step) {
  const links = [...body.querySelectorAll(".row-link")];
  const place = links.indexOf(document.activeElement);
  const next = place < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(place + step, 0), links.length - 1);
  links[next]?.focus();
}

const bindings = [
  { keys: ["j", "ArrowDown"], shown: ["j", "↓"], does: t("keys.next-study"), act: () => moveFocus(1) },
  { keys: ["k", "ArrowUp"], shown: ["k", "↑"], does: t("keys.previous-study"), act: () => moveFocus(-1) },
  { keys: ["Enter"], shown: ["Enter"], does: t("keys.open-study"), act: () => body.querySelector(".row-link")?.click() },
  { keys: ["/"], shown: ["/"], does: t("keys.search"), act: () => find("#search").focus() },
  { keys: ["u"], shown: ["u"], does: t("keys.upload"), act: () => find("#choose-files").click() },
  { keys: ["?"], shown: ["?"], does: t("keys.help"), act: () => find("#help").showModal() },
];

function wireFilters() {
  find("#search").addEventListener("input", (event) => {
    query.search = event.target.value.trim();
    keepQuery(query);
    reloadSoon();
  });
  wireSearchKeys(find("#search"), body, (words) => {
    query.search = words;
    keepQuery(query);
    clearTimeout(reloading);
    return reload();
  });
  for (const name of ["urgency", "state", "review"]) {
    find(`#${name}`).addEventListener("change", (event) => {
      query[name] = event.target.value;
      keepQuery(query);
      reload();
    });
  }
  find("#clear").addEventListener("click", () => {
    find("#filters").reset();
    Object.assign(query, { search: "", state: "", urgency: "", review: "" });
    keepQuery(query);
    showQuery();
    reload();
  });
  showQuery();
  find("#filters").addEventListener("submit", (event) => event.preventDefault());
}

function showQuery() {
  for (const name of ["search", "urgency", "state", "review"]) find(`#${name}`).value = query[name];
}

function showOrder() {
  const [, column] = /^-?(.*)$/.exec(query.sort);
  for (const head of document.querySelectorAll("[data-sort]")) {
    const chosen = head.dataset.sort === column;
    const order = query.sort.startsWith("-") ? "descending" : "ascending";
    head.closest("th").setAttribute("aria-sort", chosen ? order : "none");
  }
  find("#studies caption").textContent = t(column ? "worklist.caption-sorted" : "worklist.caption");
}

function wireOrder() {
  for (const head of document.querySelectorAll("[data-sort]")) {
    head.addEventListener("click", () => {
      query.sort = nextSort(query.sort, head.dataset.sort);
      keepQuery(query);
      showOrder();
      if (listing.isCut) reload(); // other studies come first in another order
      else draw();
    });
  }
  showOrder();
  wireMore(find("#show-more"), { body, listing, reload });
}

function wireUploads() {
  const uploads = new Uploads(find("#uploads"), changed);
  for (const chooser of document.querySelectorAll("input[type=file]")) {
    const take = () => {
      const chosen = [...chooser.files];
      const folder = chosen[0]?.webkitRelativePath.split("/")[0];
      const files = chosen.filter(isWanted);
      const name = folder || (files.length === 1 ? files[0].name : t("count.files", { count: files.length }));
      chooser.value = "";
      uploads.start({ name, files });
    };
    chooser.addEventListener("change", take);
    if (chooser.files.length > 0) take(); // chosen before this module had loaded
  }
  for (const button of document.querySelectorAll("[data-chooses]")) {
    button.addEventListener("click", () => find(button.dataset.chooses).click());
  }
  acceptDrops(find("#curtain"), (dropped) => uploads.start(dropped));
}

function showLine(state) {
  const line = find("#line");
  line.dataset.line = state;
  line.textContent = t(state === "live" ? "worklist.live" : "worklist.connecting-again");
}

async function start() {
  wireDialogs();
  wireFilters();
  wireOrder();
  wireUploads();
  listenToKeys(bindings);
  fillHelp(find("#help"), bindings);
  await reload();
  returnToPlace(body);
  listen({ since: listing.version, onStudy: changed, onDeleted: gone, onPoll: reload, onState: showLine, whileHidden: () => notifier.on });
  setInterval(() => tickAges(body), 5000);
}

start();
