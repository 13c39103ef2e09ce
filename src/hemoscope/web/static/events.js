// Changes on the server, live: server-sent events, and polling while they fail.

const ROOT = "/api/v1/events";
const POLL_MS = 4000;
const RETRY_MS = [1000, 2000, 5000, 10000];

/**
 * Call `onStudy(entry)` and `onDeleted(id)` for every change, and `onState("live" | "polling")` for the connection.
 * `since` is the version of the list that the page already has. Without a connection `onPoll()` is called every few seconds, and once after a reconnection, for changes that were missed.
 */
export function listen({ since, onStudy, onDeleted, onPoll, onState, whileHidden = () => false }) {
  let source = null;
  let version = since; // of the last change received; the browser sends it only when it reconnects by itself
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
    if (source.readyState !== EventSource.CLOSED) return; // the browser reconnects by itself
    setTimeout(connect, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
  };
  const heard = (event) => {
    version = event.lastEventId || version;
    return JSON.parse(event.data);
  };
  function connect() {
    if (document.hidden && !whileHidden()) return; // once the page is visible
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
  // A browser has six connections to a server, for all its tabs: a hidden tab must not keep one open unless asked to.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) connect();
    else if (!whileHidden()) rest();
  });
  window.addEventListener("pagehide", rest);
}
