// How a measurement is drawn over a slice: its shape, and its values beside it.

import { measuredWords } from "./measure.js";

const INK = "#7ee0ff";
const SHADOW = "rgb(0 0 0 / 85%)";
const LINE = 16; // pixels from line to line of a caption

/** Screen position of a point of the slice, by where the slice lies on the stage. */
export const onStage = (place, image, { row, column }) => [place.left + (column / image.columns) * place.width, place.top + (row / image.rows) * place.height];

function ink(context) {
  for (const [strokeStyle, lineWidth] of [[SHADOW, 4], [INK, 1.5]]) {
    Object.assign(context, { strokeStyle, lineWidth });
    context.stroke();
  }
}

function outline(context, kind, ends) {
  const [[x, y], [toX, toY] = [x, y]] = ends;
  context.beginPath();
  if (kind === "length") {
    context.moveTo(x, y);
    context.lineTo(toX, toY);
  } else if (kind === "rectangle") context.rect(Math.min(x, toX), Math.min(y, toY), Math.abs(toX - x), Math.abs(toY - y));
  else if (kind === "ellipse") context.ellipse((x + toX) / 2, (y + toY) / 2, Math.abs(toX - x) / 2, Math.abs(toY - y) / 2, 0, 0, 2 * Math.PI);
  else {
    context.moveTo(x - 6, y);
    context.lineTo(x + 6, y);
    context.moveTo(x, y - 6);
    context.lineTo(x, y + 6);
  }
  ink(context);
}

function caption(context, lines, [x, y]) {
  context.font = "13px system-ui, sans-serif";
  context.textBaseline = "top";
  const widest = Math.max(...lines.map((line) => context.measureText(line).width));
  const left = Math.max(Math.min(x, context.canvas.clientWidth - widest - 6), 4);
  const top = Math.max(Math.min(y, context.canvas.clientHeight - lines.length * LINE - 4), 4);
  lines.forEach((line, place) => {
    Object.assign(context, { strokeStyle: SHADOW, lineWidth: 3, fillStyle: INK });
    context.strokeText(line, left, top + place * LINE);
    context.fillText(line, left, top + place * LINE);
  });
}

/** Draw a cross-hair at a point, in its middle open and seen on every grey; returns where it is on the stage. */
export function drawAim(context, place, image, point) {
  const [x, y] = onStage(place, image, point);
  context.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(x + 5 * dx, y + 5 * dy);
    context.lineTo(x + 22 * dx, y + 22 * dy);
  }
  ink(context);
  return [x, y];
}

/** Draw a measurement of a kind with these points over an `image` at its `place` on the stage, with what it `found`. */
export function drawMark(context, place, image, kind, points, found) {
  const ends = points.map((point) => onStage(place, image, point));
  outline(context, kind, ends);
  const right = ends.reduce((a, b) => (a[0] > b[0] ? a : b));
  if (found) caption(context, measuredWords(kind, found), [right[0] + 8, right[1] + 4]);
}

/** Draw where a measurement can be taken hold of. */
export function drawHandles(context, place, image, handles) {
  for (const handle of handles) {
    context.beginPath();
    context.arc(...onStage(place, image, handle), 5, 0, 2 * Math.PI);
    ink(context);
  }
}
