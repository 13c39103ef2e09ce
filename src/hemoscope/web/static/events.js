// What changes on the server, as it changes: server-sent events, and polling while they fail.

const ROOT = "/api/v1/events";
const POLL_MS = 4000;
const RETRY_MS = [1000, 2000, 5000, 10000];

/**
 * Tell `onStudy(entry)` and `onDeleted(id)` of every change, and `onState("live" | "polling")` of the line.
 * `since` is the version of the list that the page already has. While there is no line `onPoll()` is called every few seconds, and once when the line is back, for what was missed.
 */
export function listen({ since, onStudy, onDeleted, onPoll, onState }) {
  let source = null;
  let version = since; // of the last change that was heard of; the browser sends it on its own reconnections alone
  let failures = 0;
  let poller = 0;

  const live = () => {
    clearInterval(poller);
    if (failures > 0) onPoll();
    failures = 0;
    poller = 0;
    onState("live");
  };
  const lost = () => {
    onState("polling");
    poller ||= setInterval(onPoll, POLL_MS);
    if (source.readyState !== EventSource.CLOSED) return; // the browser connects again by itself
    setTimeout(connect, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
  };
  const heard = (event) => {
    version = event.lastEventId || version;
    return JSON.parse(event.data);
  };
  function connect() {
    if (document.hidden) return; // as soon as the page is looked at
    source?.close();
    source = new EventSource(version === undefined ? ROOT : `${ROOT}?since=${version}`);
    source.addEventListener("open", live);
    source.addEventListener("error", () => {
      failures += 1;
      lost();
    });
    source.addEventListener("study", (event) => onStudy(heard(event)));
    source.addEventListener("deleted", (event) => onDeleted(heard(event).study_id));
  }
  connect();
  const rest = () => {
    source?.close();
    clearInterval(poller);
    poller = 0;
  };
  // A browser has six connections to a server, for all its tabs: one that nobody looks at must not keep one open.
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : connect()));
  window.addEventListener("pagehide", rest);
}
