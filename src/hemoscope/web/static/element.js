// Elements without markup in strings: text is always text, so text from a server or a file cannot become a tag.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const find = (selector) => document.querySelector(selector);

/** An HTML element: `el("button", {class: "quiet", onclick: save}, "Save")`. A button submits a form only if its type says so. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), tag === "button" ? { type: "button", ...properties } : properties, children);
}

/** An SVG element. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

// Icons of 16 x 16, drawn as strokes.
const ICONS = {
  immediate: "M8 1.8 15 14H1zM8 6v4M8 11.8v.4",
  prompt: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M8 4.5V8l2.5 1.8",
  unsure: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M6 6.2a2 2 0 1 1 2.6 1.9c-.4.2-.6.5-.6 1M8 11.3v.3",
  incomplete: "M8 1.5a6.5 6.5 0 1 1-6.5 6.5M8 4.5v4M8 10.8v.3",
  routine: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M5 8.2l2.1 2.1L11 6.2",
  unknown: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M5 8h.01M8 8h.01M11 8h.01",
  failed: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
  upload: "M8 10.5v-8M4.8 5.5 8 2.3l3.2 3.2M2 10.5V13h12v-2.5",
  caution: "M8 2 14.5 13.5h-13zM8 6.2v3.6M8 11.4v.3",
  note: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M8 7.2v4M8 4.8v.3",
  check: "M3 8.5 6.5 12 13 4.5",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
};

/** A decorative icon; the text beside it carries the meaning. */
export function icon(name) {
  const path = svg("path", { d: ICONS[name] });
  return svg("svg", { class: `icon icon-${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
}
