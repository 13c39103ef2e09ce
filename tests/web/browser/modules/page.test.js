import assert from "node:assert/strict";
import test from "node:test";

import "./english.js";
import { problemOf } from "../../../../src/hemoscope/web/static/api.js";
import { heatColour, heatOpacity, heatTable } from "../../../../src/hemoscope/web/static/colours.js";
import { filesUnder, isWanted } from "../../../../src/hemoscope/web/static/drop.js";
import { feedbackOn, latestByLabel, sightWords } from "../../../../src/hemoscope/web/static/feedback.js";
import { duration, percent, probability } from "../../../../src/hemoscope/web/static/format.js";
import { byUrgencyThenWaiting, LABELS, suspectedTypes, triageOf, URGENCIES } from "../../../../src/hemoscope/web/static/labels.js";
import { nextPage } from "../../../../src/hemoscope/web/static/login.js";
import { thresholdWords, urgencyWords } from "../../../../src/hemoscope/web/static/meaning.js";
import { knownNotes, plainNote } from "../../../../src/hemoscope/web/static/quality.js";
import { deliveryWords } from "../../../../src/hemoscope/web/static/sent.js";
import { failureOf, refusals } from "../../../../src/hemoscope/web/static/site.js";
import { barsPath, sliceAt } from "../../../../src/hemoscope/web/static/strip.js";
import { FITTED, panned, pixelAt, placement, zoomedAt } from "../../../../src/hemoscope/web/static/view.js";

const stage = { width: 800, height: 600 };
const square = { rows: 512, columns: 512, rowSize: 0.5, columnSize: 0.5 };

test("a slice is fitted in the middle of the stage", () => {
  assert.deepEqual(placement(FITTED, stage, square), { left: 100, top: 0, width: 600, height: 600, scale: 600 / 256 });
});

test("pixels twice as wide as high make the picture twice as wide", () => {
  const { width, height } = placement(FITTED, stage, { ...square, columnSize: 1 });
  assert.equal(width, 2 * height);
});

test("the pixel under the pointer is found, also zoomed and panned, and none beside the slice", () => {
  assert.deepEqual(pixelAt(FITTED, stage, square, 400, 300), { row: 256, column: 256 });
  assert.equal(pixelAt(FITTED, stage, square, 50, 300), null);
  const view = panned(zoomedAt(FITTED, stage, 2, 400, 300), stage, 60, 0);
  assert.deepEqual(pixelAt(view, stage, square, 460, 300), { row: 256, column: 256 });
});

test("zooming keeps the point under the pointer where it is, and has limits", () => {
  const before = pixelAt(FITTED, stage, square, 620, 120);
  assert.deepEqual(pixelAt(zoomedAt(FITTED, stage, 3, 620, 120), stage, square, 620, 120), before);
  assert.equal(zoomedAt(FITTED, stage, 1000, 0, 0).zoom, 16);
  assert.equal(zoomedAt(FITTED, stage, 0.0001, 0, 0).zoom, 0.5);
});

test("a slice cannot be panned out of sight", () => {
  const far = panned(FITTED, stage, 99999, -99999);
  assert.ok(Math.abs(far.panX) <= stage.width && Math.abs(far.panY) <= stage.height);
});

test("the strip has the head's end above: the top is the last slice, the bottom the first", () => {
  assert.deepEqual([0, 0.5, 0.999, -1, 2].map((share) => sliceAt(share, 36)), [35, 17, 0, 35, 0]);
  assert.equal(barsPath([0.25, 0.5], () => true), "M0 1h0.2500v1h-0.2500zM0 0h0.5000v1h-0.5000z");
  assert.equal(barsPath([0.25, 0.5], (value) => value > 0.4), "M0 0h0.5000v1h-0.5000z");
});

test("heat paints nothing where there is little, and is opaque where there is much", () => {
  assert.equal(heatOpacity(0.05), 0);
  assert.equal(heatOpacity(1), 0.8);
  assert.deepEqual(heatColour(0), [0, 0, 4]);
  assert.deepEqual(heatColour(1), [252, 255, 164]);
  assert.equal(heatTable()[0] >>> 24, 0);
  assert.equal(heatTable()[255] >>> 24, 204);
});

test("the worklist is sorted by urgency, then by waiting, and what has no result yet before routine", () => {
  const entry = (urgency, received) => ({ urgency, received_at: `2026-01-01T0${received}:00:00Z` });
  const list = [entry(null, 1), entry("routine", 1), entry("immediate", 3), entry("immediate", 2), entry("unsure", 4), entry("prompt", 0)];
  const order = list.sort(byUrgencyThenWaiting).map(({ urgency, received_at: at }) => `${urgency}${at[12]}`);
  assert.deepEqual(order, ["immediate2", "immediate3", "prompt0", "unsure4", "null1", "routine1"]);
});

test("a study that could not be read stands before routine ones: nobody knows what it shows", () => {
  const at = "2026-01-01T01:00:00Z";
  const list = [{ urgency: "routine", received_at: at }, { urgency: null, state: "failed", received_at: at }, { urgency: "unsure", received_at: at }];
  assert.deepEqual(list.sort(byUrgencyThenWaiting).map(({ urgency }) => urgency), ["unsure", null, "routine"]);
});

test("a findings document of either version has its triage", () => {
  for (const triage of URGENCIES) {
    assert.equal(triageOf({ triage }), triage);
    assert.equal(triageOf({ urgency: triage }), triage);
  }
});

test("an established type says more than any; one that is not established does not", () => {
  const types = (suspected, doubted) => suspectedTypes({ suspected, not_established: doubted });
  assert.deepEqual(types(["subdural", "any"], []), ["subdural"]);
  assert.deepEqual(types(["any", "subdural"], ["subdural"]), ["any", "subdural"]);
  assert.deepEqual(types(["any"], []), ["any"]);
});

test("numbers read as people read them", () => {
  assert.deepEqual([0.001, 0.07, 0.999].map(probability), ["<0.01", "0.07", ">0.99"]);
  assert.deepEqual([5, 125, 7500, 90000, 9e6].map(duration), ["5 s", "2 min", "2 h 05 min", "1 d", "3 months"]);
  assert.deepEqual([0.0125, 0.1, 0.804].map(percent), ["1.3%", "10%", "80%"]);
});

test("agreeing keeps the finding, correcting inverts it, and a note is trimmed", () => {
  const finding = { label: "subdural", present: true };
  assert.deepEqual(feedbackOn(finding, "agree", { slices: [3] }), { label: "subdural", verdict: "agree", present: true, slices: [3], note: "" });
  assert.deepEqual(feedbackOn(finding, "corrected", { slices: [3], note: " falx " }), { label: "subdural", verdict: "corrected", present: false, slices: null, note: "falx" });
});

test("the newest entry on a label counts", () => {
  const list = [{ label: "any", verdict: "agree" }, { label: "any", verdict: "corrected" }];
  assert.equal(latestByLabel(list).get("any").verdict, "corrected");
});

test("a dropped folder is read completely, past batches of a hundred", async () => {
  const file = (name) => ({ isFile: true, file: (done) => done({ name, size: 1 }) });
  const folder = (children) => ({ isFile: false, createReader: () => ({ readEntries: (done) => done(children.splice(0, 100)) }) });
  const many = Array.from({ length: 250 }, (_, index) => file(`IM${index}`));
  assert.equal((await filesUnder(folder([folder(many), file("DICOMDIR")]))).length, 251);
  assert.deepEqual([".DS_Store", "IM1"].map((name) => isWanted({ name, size: 1 })), [false, true]);
  assert.ok(isWanted({ name: "IM2", size: 0 }), "the server says that it is empty");
});

test("an entry that cannot be read leaves the others of a dropped folder", async () => {
  const file = (name) => ({ isFile: true, file: (done) => done({ name, size: 1 }) });
  const locked = { isFile: true, file: (_, failed) => failed(new DOMException("no", "NotReadableError")) };
  const closed = { isFile: false, createReader: () => ({ readEntries: (_, failed) => failed(new DOMException("no", "NotFoundError")) }) };
  const children = [locked, file("IM1"), closed, file("IM2")];
  const lost = [];
  const found = await filesUnder({ isFile: false, createReader: () => ({ readEntries: (done) => done(children.splice(0, 2)) }) }, (entry) => lost.push(entry));
  assert.deepEqual(found.map(({ name }) => name), ["IM1", "IM2"]);
  assert.deepEqual(lost, [locked, closed]);
});

test("what a reader takes back no longer stands", () => {
  const said = (label, verdict) => ({ label, verdict });
  assert.deepEqual([...latestByLabel([said("any", "agree"), said("subdural", "corrected"), said("any", "withdrawn")]).keys()], ["subdural"]);
  assert.equal(latestByLabel([said("any", "withdrawn"), said("any", "agree")]).get("any").verdict, "agree");
});

test("a verdict says what is or is not there", () => {
  assert.equal(sightWords("any", true), "hemorrhage");
  assert.equal(sightWords("any", false), "no hemorrhage");
  assert.equal(sightWords("subdural", false), "no subdural");
});

test("after the login one stays on this server", () => {
  const ours = "https://ct.example:8443";
  const next = (encoded) => nextPage(`?next=${encoded}`, ours);
  assert.equal(next("%2Fstudies%2Fab%3Fslice%3D3"), `${ours}/studies/ab?slice=3`);
  assert.equal(nextPage("", ours), `${ours}/`);
  assert.equal(next("/%3Furgency%3Droutine%26search%3Da%2526b"), `${ours}/?urgency=routine&search=a%26b`, "as the server sends it");
  assert.equal(new URL(next("/%3Fnext%3D//evil.example")).origin, ours);
  const foreign = ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", "https://ct.example", "http://ct.example:8443", "http://", `blob:${ours}/1-2`];
  for (const elsewhere of foreign) assert.equal(next(encodeURIComponent(elsewhere)), `${ours}/`, elsewhere);
  const stripped = ["/%09/evil.example", "/%0a/evil.example", "%0d%5cevil.example", "/%0d%5cevil.example", "%09//evil.example", "/%0d%0a/evil.example", "%2F%2Fevil.example", "%5C%5Cevil.example"];
  for (const elsewhere of stripped) assert.equal(new URL(next(elsewhere)).origin, ours, elsewhere);
  assert.equal(new URL(next("/.//evil.example")).host, "ct.example:8443", "a path of two slashes is not another host");
});

test("an answer of 429 or 503 says what failed and how long to wait, also if a proxy gave it", () => {
  const ours = problemOf(503, JSON.stringify({ title: "Service Unavailable", detail: "The database does not answer.", cure: "Check it", code: "database_unreachable" }), "5");
  assert.deepEqual([ours.detail, ours.remedy, ours.code], ["The database does not answer.", "Check it", "database_unreachable"]);
  const proxys = problemOf(503, "<html>Service Unavailable</html>", "20");
  assert.equal(proxys.detail, "The server answered 503");
  assert.equal(proxys.remedy, "The server, or a proxy before it, is starting or overloaded. Wait 20 s and try again.");
  assert.equal(problemOf(429, "", null).remedy, "Wait a minute and try again.");
  assert.equal(problemOf(404, "").remedy, "");
});

test("a failure shows its cause and its remedy as sentences, with a default if the server has none", () => {
  const failed = (message, remedy = null) => failureOf({ error_message: message, error_cure: remedy, error_code: "x" });
  assert.deepEqual(failed("no header. It is short", "Give DICOM files"), { detail: "No header. It is short.", remedy: "Give DICOM files.", code: "x" });
  assert.equal(failed("Only a scout was found.").detail, "Only a scout was found.");
  assert.match(failed("Only a scout was found.").remedy, /Export the study again/);
  assert.match(failed(null).detail, /could not be read/);
});

test("refusals are listed once each, the most frequent first", () => {
  assert.deepEqual(refusals([{ message: "a" }, { message: "b" }, { message: "b" }]), [["b", 2], ["a", 1]]);
});

test("an unknown quality note keeps its sentence and calls for caution", () => {
  assert.deepEqual(plainNote({ code: "new_thing", message: "so it is" }), { code: "new_thing", title: "new thing", message: "so it is", caution: true });
});

test("a threshold is explained at the site's prevalence, or what is missing is stated", () => {
  const proportion = (hits, rows) => ({ value: hits / rows, low: 0, high: 1, hits, rows, patients: rows });
  const performance = { method: "cross_fitted", sensitivity: proportion(33, 36), specificity: proportion(37, 46), precision: null };
  const point = { threshold: 0.24, rule: "sensitivity >= 0.9", sensitivity: 0.99, specificity: 0.99, performance };
  const cardOf = (changes) => ({ operating_points: { study: { any: { ...point, ...changes }, subdural: point } } });
  const words = (label, present, prevalence, changes = {}) => thresholdWords({ label, present }, cardOf(changes), { prevalence }).join(" ");
  assert.match(words("any", true, 0.1), /of 100 flagged about 34 were right \(95% interval 22 to 49\), at a prevalence of 10%/);
  assert.match(words("any", true, 0.1), /Measured on 36 patients with and 46 without, each decided by thresholds fitted on the other patients/);
  assert.match(words("any", true, 0.1), /Sensitivity 92% \(95% interval 0 to 100\), specificity 80% \(95% interval 0 to 100\)/);
  assert.match(words("any", false, 0.1), /of 100 not flagged about 1 had it/);
  const inSample = { sensitivity: 33 / 36, specificity: 37 / 46, performance: null };
  assert.match(words("any", true, 0.1, inSample), /of 100 flagged about 34 were right, at .*in sample.*expect lower values. No interval/);
  assert.match(words("any", true, null), /no prevalence is set/);
  assert.match(words("subdural", true, 0.1), /how common subdural bleeds are here is not known/);
});

test("the tutorial gives the sentence of the card that ships", async () => {
  const { readFile } = await import("node:fs/promises");
  const root = new URL("../../../../", import.meta.url);
  const card = JSON.parse(await readFile(new URL("src/hemoscope/bundles/default/card.json", root), "utf8"));
  const [sentence] = thresholdWords({ label: "any", present: true }, card, { prevalence: 0.1 });
  const page = (await readFile(new URL("docs/tutorial/reading-room.md", root), "utf8")).replaceAll(/\s+/g, " ");
  assert.ok(page.includes(`"${sentence.replace(/\.$/, "")}"`), sentence);
});

// What the tests in Python compare with the package and the documentation.
test("labels and notes are exported for the Python tests", { skip: !process.env.HEMOSCOPE_EXPORT && "for the Python tests" }, async () => {
  const { writeFile } = await import("node:fs/promises");
  await writeFile(process.env.HEMOSCOPE_EXPORT, JSON.stringify({ labels: LABELS, notes: knownNotes(), urgencies: URGENCIES }));
});

test("what became of results is said in a few words", () => {
  const at = new Date(2026, 2, 1, 10, 32).toISOString();
  const words = (state, more) => deliveryWords({ destination: "archive", state, sent_at: at, error: "", ...more }).replace(/[ \u202f]AM/, "");
  assert.equal(words("committed"), "Sent to archive 10:32, committed");
  assert.equal(words("delivered"), "Sent to archive 10:32");
  assert.equal(words("sent"), "Sent to archive 10:32, commitment awaited");
  assert.equal(words("waiting", { sent_at: null, error: "no association" }), "Waits to be sent to archive: no association");
  assert.equal(words("failed", { sent_at: null }), "Not sent to archive");
});

test("an unsure study names the range of the card, unless another model read it", () => {
  const study = (score) => ({ triage: "unsure", findings: [{ label: "any", probability: score }] });
  const card = { operating_points: { urgent: { threshold: 0.46 } }, unsure: { alpha: 0.1, sets: [{ alpha: 0.05, low: 0.1, high: 0.5 }, { alpha: 0.1, low: 0.16, high: 0.46 }] } };
  assert.match(urgencyWords(study(0.3), card), /any hemorrhage 0\.30 lies from 0\.16 to 0\.46/);
  const plain = "The model is unsure about this study. Read it before routine ones.";
  assert.equal(urgencyWords(study(0.9), card), plain);
  assert.equal(urgencyWords(study(0.3), { ...card, unsure: null }), plain);
  assert.equal(urgencyWords(study(0.3), null), plain);
});

test("a study that another model read is explained without a card", () => {
  const other = "Read by another model than the one now installed; its thresholds are not explained here.";
  const study = (triage) => ({ triage, findings: [{ label: "any", probability: 0.91 }] });
  assert.deepEqual(["immediate", "prompt"].map((triage) => urgencyWords(study(triage), null)), [other, other]);
  assert.equal(urgencyWords(study("routine"), null), "No established finding reached its threshold. This does not rule out hemorrhage.");
  assert.deepEqual(thresholdWords({ label: "any", present: true }, null, { prevalence: 0.1 }), [other]);
});
