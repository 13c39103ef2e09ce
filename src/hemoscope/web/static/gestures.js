// Mouse, pen and fingers on the stage. A drag applies the selected tool: window, scroll or pan. Two fingers zoom and
// pan, the wheel scrolls, Ctrl and wheel zooms, the middle button or Shift pans.

const WHEEL_STEP = 60; // of a wheel's delta, so that a touchpad does not scroll too fast

// A wheel counts in pixels, lines or pages (WheelEvent.deltaMode 0, 1, 2), by browser and setting.
const DELTA_PIXELS = [1, 20, WHEEL_STEP];

const middle = ([a, b]) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) });

/** Counts whole steps of a wheel, up is positive: one for each notch, and one for many small movements of a touchpad. */
export function wheelSteps() {
  let wheeled = 0;
  return ({ deltaY, deltaMode }) => {
    const pixels = deltaY * DELTA_PIXELS[deltaMode];
    wheeled -= Math.abs(pixels) >= WHEEL_STEP ? Math.sign(pixels) * WHEEL_STEP : pixels;
    const steps = Math.trunc(wheeled / WHEEL_STEP);
    wheeled -= steps * WHEEL_STEP;
    return steps;
  };
}

/** Let a picture take the focus by key alone: after a click the arrow keys scroll slices, as everywhere else. */
export function focusByKeyOnly(canvas) {
  canvas.addEventListener("pointerdown", () => document.activeElement?.blur());
  canvas.addEventListener("mousedown", (event) => event.preventDefault());
}

function wireWheel(stage, acts, at) {
  const stepsOf = wheelSteps();
  const wheel = (event) => {
    event.preventDefault();
    const { x, y } = at(event);
    if (event.ctrlKey) return acts.zoom(Math.exp(-event.deltaY / 300), x, y);
    const steps = stepsOf(event);
    if (steps !== 0) acts.scroll(steps);
  };
  stage.addEventListener("wheel", wheel, { passive: false });
}

/** The tool of a drag that the chosen tool does not decide, or undefined. */
function toolFor({ button, shiftKey, pointerType }, { x, y }, acts) {
  if (button === 1 || shiftKey) return "pan";
  if (acts.grabs(x, y, pointerType)) return "grab";
}

function begin(acts, drag, pinch) {
  if (pinch) acts.measureEnd(true);
  else if (drag?.tool === "window") acts.windowStart();
  else if (drag && acts.measures(drag.tool)) acts.measureStart(drag.tool, drag.start.x, drag.start.y);
}

/** Attach the listeners to the stage; `acts` has scroll(steps), measures(tool), measureStart(tool, x, y), measureMove(x, y), measureEnd(), grabs(x, y, pointerType), windowStart(), windowBy(dx, dy), pan(dx, dy), zoom(factor, x, y), hover(x, y), leave(), reset(). */
export function wireGestures(stage, acts, chosenTool) {
  const pointers = new Map();
  let [drag, pinch] = [null, null]; // {tool, start, last, rest} and {x, y, apart}

  const at = (event) => {
    const { left, top } = stage.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };

  function down(event) {
    const point = at(event);
    if (event.button === 2 || event.target.closest("button")) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, point);
    drag = pointers.size === 1 ? { tool: toolFor(event, point, acts) ?? chosenTool(event.pointerType), start: point, last: point, rest: 0 } : null;
    pinch = pointers.size === 2 ? middle([...pointers.values()]) : null;
    begin(acts, drag, pinch);
  }

  function moveDrag(point) {
    if (drag.tool === "window") acts.windowBy(point.x - drag.start.x, point.y - drag.start.y);
    if (drag.tool === "pan") acts.pan(point.x - drag.last.x, point.y - drag.last.y);
    if (drag.tool === "scroll") {
      const step = Math.max(stage.clientHeight / 60, 8);
      const steps = Math.trunc((drag.rest - (point.y - drag.last.y)) / step);
      drag.rest = drag.rest - (point.y - drag.last.y) - steps * step;
      if (steps !== 0) acts.scroll(steps);
    }
    if (acts.measures(drag.tool)) acts.measureMove(point.x, point.y);
    drag.last = point;
  }

  function movePinch() {
    const now = middle([...pointers.values()]);
    acts.pan(now.x - pinch.x, now.y - pinch.y);
    acts.zoom(now.apart / Math.max(pinch.apart, 1), now.x, now.y);
    pinch = now;
  }

  function move(event) {
    const point = at(event);
    if (!pointers.has(event.pointerId)) {
      if (event.pointerType !== "touch") acts.hover(point.x, point.y);
      return;
    }
    pointers.set(event.pointerId, point);
    if (pinch) movePinch();
    else if (drag) moveDrag(point);
    if (event.pointerType !== "touch") acts.hover(point.x, point.y);
  }

  function up(event) {
    pointers.delete(event.pointerId);
    if (drag && acts.measures(drag.tool)) acts.measureEnd(event.type === "pointercancel");
    drag = null;
    pinch = null;
  }

  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, up);
  stage.addEventListener("pointerleave", acts.leave);
  wireWheel(stage, acts, at);
  stage.addEventListener("dblclick", () => acts.measures(chosenTool("mouse")) || acts.reset()); // two points at one place are no double click
}
