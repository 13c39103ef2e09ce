// The server's REST API (docs/reference/rest-api.md) with errors that state the cause and what to do.

import { t, unlessTranslated } from "./messages.js";

const ROOT = "/api/v1";

/** An error of the server (problem+json) or of the network; `remedy` is what to do, `cure` in the document. */
export class Problem extends Error {
  constructor({ title, detail, cure = "", code = "", status = 0 }) {
    super(detail || title);
    Object.assign(this, { title, detail: detail || title, remedy: cure, code, status });
  }
}

const unreachable = () => new Problem({ detail: t("problem.unreachable"), cure: t("problem.unreachable.remedy"), code: "unreachable" });

let site = null;
let csrf = ""; // of the last answer, for a page that is being left and can wait for nothing

/** The site's settings, fetched once; their token is sent with every request that changes something. */
export function getSite() {
  site ??= getJson("/site").then((given) => {
    csrf = given.csrf_token ?? "";
    return given;
  }).catch((error) => {
    site = null; // the next call asks again
    throw error;
  });
  return site;
}

const token = async () => (await getSite()).csrf_token ?? "";

/** The error of an answer: the server's own words, or for a proxy's page what its status and Retry-After say. */
export function problemOf(status, text, retryAfter = null) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's page instead of problem+json: only the status is known.
  }
  const title = body.title ?? t("problem.status", { status });
  const [detail, cure] = [["", body.detail], [".remedy", body.cure ?? remedyOf(status, retryAfter)]].map(([part, given]) => unlessTranslated(`problem.${body.code}${part}`, given));
  return new Problem({ title, detail, cure, code: body.code, status });
}

function remedyOf(status, retryAfter) {
  const wait = /^\d+$/.test(retryAfter ?? "") ? t("problem.wait-seconds", { seconds: retryAfter }) : t("problem.wait-minute");
  if (status === 429) return wait;
  return [502, 503, 504].includes(status) ? t("problem.overloaded", { wait }) : "";
}

function toLogin(status) {
  if (status !== 401 || location.pathname === "/login" || !globalThis.document) return; // a worker leads nowhere: its page will
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (options.method && path !== "/login") headers["X-CSRF-Token"] = await token();
  let response;
  try {
    response = await fetch(ROOT + path, { credentials: "same-origin", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (response.ok) return response;
  if (response.status === 403) site = null; // the token may be of an expired session: the next attempt fetches a new one
  toLogin(response.status);
  throw problemOf(response.status, await response.text(), response.headers.get("Retry-After"));
}

/** The bytes of an answer; a connection that is lost in the middle of them is a problem too. */
async function bytesOf(response) {
  try {
    return await response.arrayBuffer();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

export async function getJson(path) {
  return (await request(path)).json();
}

/** One study, and the version of the list from which events follow it: {entry, since}. */
export async function getStudy(studyId) {
  const response = await request(`/studies/${studyId}`);
  return { entry: await response.json(), since: Number(response.headers.get("X-Version")) };
}

/** Send JSON; returns the answer's JSON, or null if it has none. */
export async function sendJson(method, path, body) {
  const options = { method };
  if (body !== undefined) Object.assign(options, { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const text = await (await request(path, options)).text();
  return text ? JSON.parse(text) : null;
}

/** Send a request without a body as the page is left; no answer is waited for. */
export function sendOnLeaving(method, path) {
  fetch(ROOT + path, { method, headers: { "X-CSRF-Token": csrf }, credentials: "same-origin", keepalive: true }).catch(() => {}); // the mark then ends by itself
}

/** One slice in HU: {hounsfield: Int16Array, rows, columns}. The bytes are little endian, as all browsers' machines are. */
export const slicePixels = (studyId, index, signal) => pixelsAt(`/studies/${studyId}/slices/${index}/pixels`, index, signal);

/** One slice of another series of the study. */
export const seriesPixels = (studyId, number, index, signal) => pixelsAt(`/studies/${studyId}/series/${number}/slices/${index}/pixels`, index, signal);

/** Several slices in one answer, `stride` apart: an Int16Array of each. */
export async function severalPixels(studyId, { first, stride, count }, size) {
  const response = await request(`/studies/${studyId}/pixels?${new URLSearchParams({ first, stride, count })}`);
  const buffer = await bytesOf(response);
  if (buffer.byteLength !== count * size * 2) {
    throw new Problem({ detail: t("problem.slice-incomplete", { number: first + 1 }), cure: t("problem.slice-incomplete.remedy") });
  }
  return Array.from({ length: count }, (_, place) => new Int16Array(buffer, place * size * 2, size));
}

async function pixelsAt(path, index, signal) {
  const response = await request(path, { signal });
  const [rows, columns] = ["X-Rows", "X-Columns"].map((name) => Number(response.headers.get(name)));
  const hounsfield = new Int16Array(await bytesOf(response));
  if (hounsfield.length !== rows * columns) {
    throw new Problem({ detail: t("problem.slice-incomplete", { number: index + 1 }), cure: t("problem.slice-incomplete.remedy") });
  }
  return { hounsfield, rows, columns };
}

/** One heat map: bytes where 255 is probability 1, of the shape given in the study's geometry. */
export async function heatMap(studyId, index, label, signal) {
  const response = await request(`/studies/${studyId}/slices/${index}/heatmap/${label}`, { signal });
  return new Uint8Array(await bytesOf(response));
}

/**
 * Upload files as one study or archive, calling `onProgress(sent, total)`; `signal` cancels.
 * Parts get neutral names: file names often hold patients' names, and the server does not need them.
 */
export async function upload(files, { onProgress, signal }) {
  const csrfToken = await token();
  const form = new FormData();
  files.forEach((file, place) => form.append("files", file, String(place + 1).padStart(6, "0")));
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest(); // fetch does not report upload progress
    call.open("POST", `${ROOT}/uploads`);
    call.setRequestHeader("X-CSRF-Token", csrfToken);
    call.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    call.addEventListener("load", () => {
      setTimeout(toLogin, 0, call.status); // once this upload counts as ended: the page asks before it is left during one
      if (call.status === 202) resolve(JSON.parse(call.responseText).study);
      else reject(problemOf(call.status, call.responseText, call.getResponseHeader("Retry-After")));
    });
    call.addEventListener("error", () => reject(unreachable()));
    call.addEventListener("abort", () => reject(new DOMException("Upload cancelled", "AbortError")));
    signal.addEventListener("abort", () => call.abort());
    call.send(form);
  });
}
