// Where the slice lies on the stage: fit, zoom and pan, in CSS pixels. Pure functions of plain values.
// A view is {zoom, panX, panY}: zoom 1 fits the slice, pan moves its centre from the centre of the stage.
// An image is {rows, columns, rowSize, columnSize}: the sizes give pixels that are not square their true shape.

export const FITTED = Object.freeze({ zoom: 1, panX: 0, panY: 0 });
const LEAST_ZOOM = 0.5;
const MOST_ZOOM = 16;

export const zoomWithin = (zoom) => Math.min(Math.max(zoom, LEAST_ZOOM), MOST_ZOOM);

/** The rectangle of the slice on a stage of (width, height), and screen pixels for one unit of row and column size. */
export function placement(view, stage, image) {
  const wide = image.columns * image.columnSize;
  const high = image.rows * image.rowSize;
  const scale = Math.min(stage.width / wide, stage.height / high) * view.zoom;
  const [width, height] = [wide * scale, high * scale];
  const left = (stage.width - width) / 2 + view.panX;
  const top = (stage.height - height) / 2 + view.panY;
  return { left, top, width, height, scale };
}

/** The pixel {row, column} of the slice under a point of the stage, or null outside the slice. */
export function pixelAt(view, stage, image, x, y) {
  const place = placement(view, stage, image);
  const column = Math.floor(((x - place.left) / place.width) * image.columns);
  const row = Math.floor(((y - place.top) / place.height) * image.rows);
  const inside = row >= 0 && row < image.rows && column >= 0 && column < image.columns;
  return inside ? { row, column } : null;
}

/** The view zoomed by a factor about a point of the stage, which stays where it is. */
export function zoomedAt(view, stage, factor, x, y) {
  const zoom = zoomWithin(view.zoom * factor);
  const ratio = zoom / view.zoom;
  const [fromX, fromY] = [x - stage.width / 2, y - stage.height / 2];
  return { zoom, panX: fromX - (fromX - view.panX) * ratio, panY: fromY - (fromY - view.panY) * ratio };
}

/** The view moved by (dx, dy), the middle of the slice staying on the stage. */
export function panned(view, stage, dx, dy) {
  const limit = (value, most) => Math.min(Math.max(value, -most), most);
  const reach = Math.max(view.zoom, 1) / 2;
  return {
    ...view,
    panX: limit(view.panX + dx, stage.width * reach),
    panY: limit(view.panY + dy, stage.height * reach),
  };
}
