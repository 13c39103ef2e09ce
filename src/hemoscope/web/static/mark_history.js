// What the reader has drawn, moved and deleted in this page, so that it can be taken back. A change is {added, removed},
// each a measurement or null: moving one adds another in its place.

export class MarkHistory {
  #changes = [];

  /** Note what a change has done; nothing, if it failed. */
  note({ added, removed }) {
    if (added || removed) this.#changes.push({ added, removed });
  }

  /** Take out the newest change, or null: one whose measurement is no longer there by `isThere(mark)` is passed over, as somebody else has deleted it. */
  take(isThere) {
    let last = this.#changes.pop();
    while (last?.added && !isThere(last.added)) last = this.#changes.pop();
    return last ?? null;
  }

  /** A measurement was stored again, as another one: that is what the changes before have added. */
  restored(old, mark) {
    for (const change of this.#changes) {
      if (change.added?.measurement_id === old.measurement_id) change.added = mark;
    }
  }
}
