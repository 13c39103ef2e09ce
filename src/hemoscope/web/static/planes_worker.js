// Cuts planes beside the page, which scrolls on meanwhile. Messages: {volume}, {index, hounsfield}, {plane, point}.

import { reformatted } from "./reformat.js";

let volume = null;
const slices = [];

addEventListener("message", ({ data }) => {
  if (data.volume) volume = data.volume;
  else if (data.hounsfield) slices[data.index] = data.hounsfield;
  else {
    const cut = reformatted(volume, slices, data.plane, data.point);
    postMessage({ plane: data.plane, ...cut }, [cut.hounsfield.buffer]);
  }
});
