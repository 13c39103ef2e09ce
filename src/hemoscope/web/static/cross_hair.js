// The cross-hair that links the slice and its planes.

const INK = "#7ee0ff";

/** The cross-hair of a place (x, y) on a stage, with a gap about the place itself. */
export function drawCrossHair(context, { x, y }, { width, height }) {
  context.beginPath();
  for (const [fromX, fromY, toX, toY] of [[0, y, x - 12, y], [x + 12, y, width, y], [x, 0, x, y - 12], [x, y + 12, x, height]]) {
    context.moveTo(fromX, fromY);
    context.lineTo(toX, toY);
  }
  Object.assign(context, { strokeStyle: INK, lineWidth: 1 });
  context.stroke();
}
