// What a screen reader says. Scrolling through slices must not fill its queue: only where it comes to rest is said.

const PAUSE_MS = 500;
let waiting = 0;

/** Say a sentence politely, once nothing newer came for half a second. */
export function announce(text) {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    document.querySelector("#announcement").textContent = text;
  }, PAUSE_MS);
}
