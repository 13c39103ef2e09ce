// The reading page: loads one study, follows it while it is being read, and brings its parts together.

import { getJson, getStudy, Problem, sendJson } from "./api.js";
import { announce } from "./announce.js";
import { Beside, besideKeys } from "./beside.js";
import { showBrief, showStage } from "./brief.js";
import { fillCard } from "./card.js";
import { el, find } from "./element.js";
import { listen } from "./events.js";
import { latestByLabel } from "./feedback.js";
import { drawFindings, markReviewed, openFinding, verdictKeys } from "./findings.js";
import { firstHeat } from "./heat_controls.js";
import { fillHelp, isTyping, listenToKeys } from "./keys.js";
import { Marks } from "./marks.js";
import { cardOf } from "./meaning.js";
import { t } from "./messages.js";
import { Neighbours } from "./neighbours.js";
import { Planes } from "./planes.js";
import { addressOf, keepPlace, readQuery } from "./query.js";
import { differInMarksAlone, readerKeys, Readers } from "./readers.js";
import { Reading } from "./reading.js";
import { showSent } from "./sent.js";
import { showHead } from "./study_head.js";
import { failureOf, isAdmin, loadSite, problemBox, wireDialogs } from "./site.js";
import { allowMeasures, readingKeys, wireTools } from "./tools.js";
import { failureNote, progressOf } from "./unfinished.js";
import { firstLabel, firstToSee, nextStop, openingSlice, stopsOf } from "./walk.js";

const studyId = location.pathname.split("/").at(-1);
const panel = find("#panel");
const query = readQuery();
const page = { site: null, card: null, entry: null, rest: null, stops: [], said: null, behind: false, unheard: false };
const worklist = `/${addressOf(query)}`;
const neighbours = new Neighbours(studyId, query);

const reading = new Reading(studyId, {
  onLabel: (label) => void [openFinding(panel, label), showBrief(panel, readers)],
  onProblem: (error) => {
    reading.message("");
    find("#stage-message").replaceChildren(problemBox(error, el("button", { onclick: () => reading.goTo(reading.index) }, t("common.try-again"))));
  },
});

const marks = new Marks(studyId, reading, find("#measurements"));
const planes = new Planes(studyId, reading);
const beside = new Beside(studyId, reading);
const readers = new Readers(studyId, find("#readers"));

const showProgress = (entry) => panel.replaceChildren(progressOf(entry));

function showFailure(entry) {
  panel.replaceChildren(failureNote(entry));
  if (entry.has_pixels) return;
  reading.message(t("study.no-slices", { reason: failureOf(entry).detail })); // on a phone the panel lies below the stage
  find(".tools").hidden = true;
}

/** Show the first key slice at once: the rest of the volume, feedback and measurements follow it. */
function showFirstKeySlice(entry) {
  const keys = entry.geometry.key_slices;
  const label = firstLabel(entry.findings.studies[0].findings);
  reading.stack.prefer([...(keys[label] ?? []), ...Object.values(keys).map(([first]) => first)].filter((index) => index !== undefined));
  const key = openingSlice(entry);
  reading.setHeat(firstHeat(entry.suspected.length > 0 && key !== undefined));
  reading.choose(label);
  if (key !== undefined) reading.goTo(key);
}

async function showFindings(entry) {
  const study = entry.findings.studies[0];
  const feedback = await fetchFeedback();
  const context = {
    studyId,
    card: cardOf(entry.findings, page.card),
    site: page.site,
    geometry: entry.geometry,
    slices: entry.geometry.slices,
    currentSlice: () => reading.index,
    onFinding: (label) => goToFinding(label, firstToSee(entry.geometry, label)),
    onSlice: (index, label) => {
      reading.choose(label);
      reading.goTo(index);
      showStage();
    },
    onGiven: (label, given) => {
      markReviewed(panel.querySelector(`.finding[data-label="${label}"]`), given);
      page.said?.check();
      announce(t(given ? "study.feedback-saved" : "study.feedback-taken-back"));
    },
    onFailed: (label) => isTyping() || reading.choose(label), // else the next letters would answer for the finding
  };
  page.stops = stopsOf(study.findings, entry.geometry);
  page.said = drawFindings(panel, study, context, feedback);
  openFinding(panel, reading.label);
}

/** A finding and its picture go together: its first key slice under its heat map. */
function goToFinding(label, slice) {
  reading.setHeat(firstHeat(true));
  reading.choose(label);
  if (typeof slice === "number") reading.goTo(slice);
}

/** Show the slices, unless the stage is the `same`; returns a promise of the measurements on them. */
function showSlices(entry, same) {
  if (same) return marks.load();
  const isNew = entry.state === "done" && page.entry?.state !== "done";
  reading.open(entry.geometry, entry.not_established, isNew ? openingSlice(entry) : undefined);
  if (isNew) showFirstKeySlice(entry);
  allowMeasures(reading);
  planes.allow(entry.geometry);
  return marks.load();
}

const fetchFeedback = async () => latestByLabel((await getJson(`/studies/${studyId}/feedback`)).feedback);
const fetchStudy = async () => (await getStudy(studyId)).entry;

const isSameStage = (known, entry) => known !== null && known.state === entry.state && known.has_pixels === entry.has_pixels;

function showPanel(entry) {
  if (entry.state === "done") return page.said?.follow(fetchFeedback) ?? showFindings(entry);
  page.said = null;
  return entry.state === "failed" ? showFailure(entry) : showProgress(entry);
}

/** Show a study; its slices wait for nothing else, and stay as they are, under the reader's hands, until there is more of them. */
async function show(entry) {
  showHead(entry);
  const same = isSameStage(page.entry, entry);
  const measured = entry.geometry && entry.has_pixels ? showSlices(entry, same) : null;
  beside.allow(entry);
  measured?.catch(() => {}); // reported below
  await page.rest;
  await showPanel(entry);
  page.entry ? readers.show(entry) : readers.begin(page.site, entry);
  showBrief(panel, readers);
  Object.assign(page, { entry, behind: false, unheard: measured !== null });
  await measured;
  page.unheard = false;
}

let turn = Promise.resolve();

/** Fetch the study and show what is new, one after the other: an older answer must not win. `force` draws what is known again. */
function load({ force = false } = {}) {
  const next = async () => {
    const entry = await fetchStudy();
    const known = page.entry?.version ?? -1;
    if (entry.version > known || (entry.version === known && (force || page.behind || page.unheard))) await show(entry);
  };
  turn = turn.then(next, next);
  return turn;
}

/** Run `act`; a problem is shown in the place of the findings. In the background they stay, with a note being written: the next change tries again. */
async function guarded(act, { background = false } = {}) {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (background && page.said && error.status !== 404) return;
    Object.assign(page, { said: null, behind: true });
    const again = el("button", { onclick: () => location.reload() }, t("common.try-again"));
    const back = el("a", { class: "button", href: worklist }, t("study.back"));
    panel.replaceChildren(problemBox(error, error.status === 404 ? back : again));
  }
}

function changed(entry) {
  if (!neighbours.keep(entry) || entry.study_id !== studyId || !page.entry) return;
  if (entry.version <= page.entry.version) return; // it was fetched since
  readers.show(entry);
  showBrief(panel, readers);
  if (!isSameStage(page.entry, entry)) return void guarded(load);
  if (entry.state === "done") guarded(() => followDone(page.entry, entry), { background: true });
  else if (entry.state !== "failed") showProgress(entry);
  page.entry = { ...page.entry, ...entry };
}

/** A finished study has changed: by a reader, or by its deliveries and other series, which a row holds in numbers or not at all. */
async function followDone(known, entry) {
  page.behind ||= !differInMarksAlone(known, entry) || !allSent(known); // until it has been fetched
  page.unheard = true; // likewise
  await Promise.all([page.said?.follow(fetchFeedback), page.entry.has_pixels && marks.load()]);
  page.unheard = false;
  if (!page.behind) return;
  const fresh = await fetchStudy();
  page.behind = false;
  page.entry = { ...page.entry, deliveries: fresh.deliveries };
  showSent(find("#sent"), fresh);
  beside.allow(fresh);
}

const allSent = ({ deliveries }) => deliveries.every(({ state }) => ["delivered", "committed"].includes(state));

function gone(id) {
  neighbours.remove(id);
  if (id === studyId) location.assign(worklist);
}

function walk(step) {
  const stop = nextStop(page.stops, { label: reading.label, slice: reading.index }, step);
  if (stop) goToFinding(stop.label, stop.slice);
}

function showCard() {
  const set = async (prevalence) => {
    await guarded(async () => {
      await sendJson("PUT", "/site/prevalence", { prevalence });
      Object.assign(page.site, { prevalence });
      page.said = null; // the findings' words change
      showCard();
      if (page.entry?.state === "done") await load({ force: true });
    });
  };
  fillCard(find("#card"), page.card, page.site, isAdmin(page.site) ? set : null);
  find("#model-name").textContent = `${page.card.name} ${page.card.version}`;
}

async function start() {
  wireDialogs();
  keepPlace(studyId);
  wireTools(reading, marks, planes);
  find(".brand").href = worklist;
  reading.setHeat(false);
  reading.setOpacity(reading.opacity);
  const keys = readingKeys(reading, marks, { planes: () => planes.toggle(), neighbour: (step) => neighbours.go(step), walk, worklist: () => location.assign(worklist), more: [...besideKeys(beside), ...readerKeys(readers), ...verdictKeys(panel, (label, verdict) => page.said?.give(label, verdict))] });
  listenToKeys(keys);
  fillHelp(find("#help"), keys);
  const [study, rest, listed] = [getStudy(studyId), fetchRest(), neighbours.load()];
  page.rest = rest;
  for (const one of [study, rest, listed]) one.catch(() => {}); // each is awaited, and its problem shown, below
  await guarded(async () => {
    const { entry, since } = await study;
    await show(entry);
    // The study may have changed before the list came, or the list before the study: events follow the older of the two.
    listen({ since: Math.min(since, await listed), onStudy: changed, onDeleted: gone, onPoll: () => guarded(load, { background: true }), onState: () => {} });
  });
}

/** What the findings need and the slices do not. */
async function fetchRest() {
  const [site, card] = await Promise.all([loadSite(), getJson("/model")]);
  Object.assign(page, { site, card });
  showCard();
}

start();
