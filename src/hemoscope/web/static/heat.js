// Heat maps of the chosen label: fetched for the current slice and its neighbours, and drawn over their slice.

import { SliceStack } from "./stack.js";

const REACH = { ahead: 4, behind: 2 };
const KEPT = 96; // maps are a few kilobytes

/** `load(index, label, signal)` returns the bytes; `onReady(index)` is called when the map of a slice has arrived. */
export class HeatMaps {
  #geometry;
  #load;
  #onReady;
  #stacks = new Map();

  constructor(geometry, load, onReady) {
    this.#geometry = geometry;
    this.#load = load;
    this.#onReady = onReady;
  }

  #stack(label) {
    if (!this.#stacks.has(label)) {
      const options = {
        count: this.#geometry.slices,
        load: (index, signal) => this.#load(index, label, signal),
        onLoaded: this.#onReady,
        onFailed: () => {}, // the slice is shown without its map; the next visit requests it again
        capacity: KEPT,
        parallel: 2,
        reach: REACH,
      };
      this.#stacks.set(label, new SliceStack(options));
    }
    return this.#stacks.get(label);
  }

  /** The map of a slice for the viewer, or null while it is loading. */
  want(index, label, direction) {
    const stack = this.#stack(label);
    stack.want(index, direction);
    const bytes = stack.get(index);
    return bytes ? { bytes, shape: this.#geometry.heatmap_shape, box: this.#geometry.boxes[index] } : null;
  }
}
