// What this browser remembers. Where a site may keep no data, `localStorage` throws as soon as it is touched: the page
// then remembers until it is closed.

const untilClosed = new Map();

function areaOf(name) {
  try {
    return globalThis[name];
  } catch {
    return null;
  }
}

function memory(area) {
  return {
    /** The text kept under a name, or null. */
    get(name) {
      try {
        return areaOf(area).getItem(name);
      } catch {
        return untilClosed.get(name) ?? null;
      }
    },
    set(name, text) {
      untilClosed.set(name, text);
      try {
        areaOf(area).setItem(name, text);
      } catch {
        // Blocked or full: kept in this page alone.
      }
    },
  };
}

/** For as long as the reader likes: choices. */
export const remembered = memory("localStorage");
/** For this tab alone: what is searched for, which may be a patient's name and must not stand in an address. */
export const thisTab = memory("sessionStorage");
