// Logging in, by name and password or by an access token.

import { Problem, sendJson } from "./api.js";
import { t } from "./messages.js";
import { problemBox } from "./site.js";

const find = (selector) => document.querySelector(selector);

/** The address to go on to: on this server (`origin`), never another site's, as the browser itself reads it. */
export function nextPage(search, origin) {
  const next = new URLSearchParams(search).get("next") ?? "/";
  const url = URL.canParse(next, origin) ? new URL(next, origin) : null;
  const page = url !== null && ["http:", "https:"].includes(url.protocol); // a blob: has the origin of its maker
  return page && url.origin === origin ? url.href : `${origin}/`;
}

function credentials() {
  if (!find("#by-token").hidden) return { token: find("#token").value };
  return { user: find("#name").value, password: find("#password").value };
}

function switchWay() {
  const token = find("#by-token").hidden;
  find("#by-token").hidden = !token;
  find("#by-user").hidden = token;
  find("#switch").textContent = t(token ? "login.use-password" : "login.use-token");
  find(token ? "#token" : "#name").focus();
}

async function logIn(event) {
  event.preventDefault();
  const button = event.target.querySelector("[type=submit]");
  button.disabled = true;
  try {
    await sendJson("POST", "/login", credentials());
    location.assign(nextPage(location.search, location.origin));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    find("#trouble").replaceChildren(problemBox(error));
    find("#by-token").hidden ? find("#password").select() : find("#token").select();
  } finally {
    button.disabled = false;
  }
}

function start() {
  find("#login").addEventListener("submit", logIn);
  find("#switch").addEventListener("click", switchWay);
}

if (globalThis.document) start();
