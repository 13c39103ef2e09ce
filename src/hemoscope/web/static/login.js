// Logging in, by name and password or by an access token.

import { Problem, sendJson } from "./api.js";
import { problemBox } from "./site.js";

const find = (selector) => document.querySelector(selector);

/** The page to go on to: one of this server's own, never another site's. */
export function nextPage(search) {
  const next = new URLSearchParams(search).get("next") ?? "/";
  return /^\/(?![/\\])/.test(next) ? next : "/";
}

function credentials() {
  if (!find("#by-token").hidden) return { token: find("#token").value };
  return { user: find("#name").value, password: find("#password").value };
}

function switchWay() {
  const token = find("#by-token").hidden;
  find("#by-token").hidden = !token;
  find("#by-user").hidden = token;
  find("#switch").textContent = token ? "Use name and password instead" : "Use an access token instead";
  find(token ? "#token" : "#name").focus();
}

async function logIn(event) {
  event.preventDefault();
  const button = event.target.querySelector("[type=submit]");
  button.disabled = true;
  try {
    await sendJson("POST", "/login", credentials());
    location.assign(nextPage(location.search));
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
