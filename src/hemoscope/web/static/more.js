// "Show more": the next page of a list that is cut off.

import { keepPages, pagesShown } from "./query.js";

/** `reload()` says whether the list came. The focus moves to the first row of the new page, if the reader has not moved it meanwhile. */
export function wireMore(button, { body, listing, reload }) {
  const isIdle = () => [document.body, button].includes(document.activeElement); // a disabled button loses the focus

  async function showMore() {
    const { end } = listing;
    const before = new Set(listing.entries.keys());
    const pages = pagesShown() + 1;
    button.disabled = true; // one page for two clicks
    keepPages(pages);
    const came = await reload();
    button.disabled = false;
    if (came === false && pagesShown() === pages) keepPages(pages - 1);
    if (!isIdle()) return;
    const next = came && listing.sorted.find((entry) => !before.has(entry.study_id) && !listing.isWithin(entry, end));
    (next ? body.querySelector(`[data-study="${next.study_id}"] .row-link`) : button).focus();
  }

  button.addEventListener("click", showMore);
}
