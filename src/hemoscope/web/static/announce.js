// Announcements for screen readers. Scrolling must not fill their queue: only the slice where it stops is announced.

const PAUSE_MS = 500;
let waiting = 0;

/** Announce a sentence politely (ARIA live region), once nothing newer came for half a second; no text announces nothing. */
export function announce(text) {
  if (!text) return; // it must not cancel another one
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    document.querySelector("#announcement").textContent = text;
  }, PAUSE_MS);
}
