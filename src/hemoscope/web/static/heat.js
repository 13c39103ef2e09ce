// Heat maps of the chosen label: fetched for the slice that is looked at and its neighbours, and shown with their slice.

import { SliceStack } from "./stack.js";

const REACH = { ahead: 4, behind: 2 };
const KEPT = 96; // maps are a few kilobytes

/** `load(index, label, signal)` gives the bytes; `onReady(index)` tells that the map of a slice is there. */
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
        onFailed: () => {}, // the slice stands without its map; it is asked for again with the next look
        capacity: KEPT,
        parallel: 2,
        reach: REACH,
      };
      this.#stacks.set(label, new SliceStack(options));
    }
    return this.#stacks.get(label);
  }

  /** The map of a slice as the viewer takes it, or null while it is on its way. */
  want(index, label, direction) {
    const stack = this.#stack(label);
    stack.want(index, direction);
    const bytes = stack.get(index);
    return bytes ? { bytes, shape: this.#geometry.heatmap_shape, box: this.#geometry.boxes[index] } : null;
  }
}
