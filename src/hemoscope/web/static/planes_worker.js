// Fetches a study's slices and cuts planes through them beside the page, which scrolls on meanwhile: no pixel passes through
// the page's own thread but those of the finished planes. Messages: {studyId, volume, messages} begins, {plane, point, id} asks for a
// plane; {come} or {problem} say how far it is, {plane, id, of, hounsfield, ...} is a plane, cut through `of` slices.

import { Problem, severalPixels } from "./api.js";
import { useMessages } from "./messages.js";
import { coarseFirst, reformatted } from "./reformat.js";

const AT_ONCE = 32; // slices in one request, the most that the server gives
const PARALLEL = 2; // one is read while the next is on its way

let volume = null;
const slices = [];
let come = 0;

function* requests() {
  for (const { first, stride, count } of coarseFirst(volume)) {
    for (let done = 0; done < count; done += AT_ONCE) yield { first: first + done * stride, stride, count: Math.min(AT_ONCE, count - done) };
  }
}

async function fetchAll(studyId) {
  const waiting = requests();
  const fetchNext = async () => {
    for (const request of waiting) {
      const found = await severalPixels(studyId, request, volume.rows * volume.columns);
      found.forEach((hounsfield, place) => (slices[request.first + place * request.stride] = hounsfield));
      come += found.length;
      postMessage({ come });
    }
  };
  try {
    await Promise.all(Array.from({ length: PARALLEL }, fetchNext));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    postMessage({ problem: error.message });
  }
}

addEventListener("message", ({ data }) => {
  if (data.studyId) {
    ({ volume } = data);
    useMessages(data.messages);
    fetchAll(data.studyId);
    return;
  }
  const cut = reformatted(volume, slices, data.plane, data.point);
  postMessage({ plane: data.plane, id: data.id, of: come, ...cut }, [cut.hounsfield.buffer]);
});
