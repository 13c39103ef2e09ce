// Heat maps of the chosen label: fetched for the current slice and its neighbours, and drawn over their slice.

import { SliceStack } from "./stack.js";

const REACH = { ahead: 4, behind: 2 };
const KEPT = 96; // maps are a few kilobytes

/** `load(index, label, signal)` returns the bytes; `onReady(index)` is called when the map of a slice has arrived, `onFailed(index)` when it could not be loaded. */
export class HeatMaps {
  #geometry;
  #load;
  #onReady;
  #onFailed;
  #stacks = new Map();
  #failed = new Set();

  constructor(geometry, load, onReady, onFailed) {
    this.#geometry = geometry;
    this.#load = load;
    this.#onReady = onReady;
    this.#onFailed = onFailed;
  }

  #stack(label) {
    if (!this.#stacks.has(label)) {
      const options = {
        count: this.#geometry.slices,
        load: async (index, signal) => {
          const bytes = await this.#load(index, label, signal);
          this.#failed.delete(`${label}/${index}`);
          return bytes;
        },
        onLoaded: this.#onReady,
        onFailed: (index) => {
          this.#failed.add(`${label}/${index}`); // the slice is shown without its map; the next visit requests it again
          this.#onFailed(index);
        },
        capacity: KEPT,
        parallel: 2,
        reach: REACH,
      };
      this.#stacks.set(label, new SliceStack(options));
    }
    return this.#stacks.get(label);
  }

  /** Whether the map of a slice was asked for last and could not be loaded. */
  hasFailed(index, label) {
    return this.#failed.has(`${label}/${index}`);
  }

  /** The map of a slice for the viewer, or null while it is loading. */
  want(index, label, direction) {
    const stack = this.#stack(label);
    stack.want(index, direction);
    const bytes = stack.get(index);
    return bytes ? { bytes, shape: this.#geometry.heatmap_shape, box: this.#geometry.boxes[index] } : null;
  }
}
