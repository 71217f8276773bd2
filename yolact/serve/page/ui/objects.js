/** The list of objects, which is the way to them without a mouse. */

import { change, colorOf, onChange, shownObjects, state } from "../lib/state.js";
import { announce, byId, element, setPressed } from "./dom.js";

let seen = null; // the row of the selected object, once it was scrolled to

export function startObjects() {
  onChange(draw);
}

/** Select an object, or none if it is selected already. */
export function select(object) {
  change({ selected: object === state.selected ? null : object, terms: Infinity });
}

/** Select the next object of the list, or the one before. */
export function stepObject(distance) {
  const objects = shownObjects();
  const place = objects.indexOf(state.selected);
  const next = place < 0 ? 0 : Math.min(Math.max(place + distance, 0), objects.length - 1);
  if (!objects[next]) return;
  change({ selected: objects[next], terms: Infinity });
  announce(`${objects[next].name} ${objects[next].score.toFixed(2)}`);
}

/** Move the focus to the row of an object. */
export function focusObject(object) {
  byId("objects").children[shownObjects().indexOf(object)]?.firstChild.focus();
}

/** Rows are kept and filled anew: the focus stays where it is, also in a live picture. */
function draw() {
  const list = byId("objects");
  const objects = shownObjects();
  while (list.children.length > objects.length) list.lastChild.remove();
  while (list.children.length < objects.length) list.append(makeRow());
  objects.forEach((object, i) => fillRow(list.children[i].firstChild, object));
  const selected = list.querySelector("[aria-pressed=true]");
  if (selected !== seen) selected?.scrollIntoView({ block: "nearest" });
  seen = selected;
}

function makeRow() {
  const parts = ["swatch", "name", "meter", "score"];
  const spans = parts.map((className) => element("span", { className }));
  return element("li", {}, element("button", { type: "button", className: "object" }, ...spans));
}

function fillRow(button, object) {
  const [swatch, name, meter, score] = button.children;
  swatch.style.background = colorOf(object);
  name.textContent = object.name;
  meter.style.setProperty("--share", `${100 * object.score}%`);
  score.textContent = object.score.toFixed(2);
  setPressed(button, object === state.selected);
  button.onclick = () => select(object);
  button.onpointerenter = button.onfocus = () => change({ hovered: object });
  button.onpointerleave = button.onblur = () => change({ hovered: null });
}
