/** The threshold, the classes, and how objects are drawn: nothing of it asks the server. */

import {
  change, colorOf, foundObjects, onChange, shownObjects, state, tally,
} from "../lib/state.js";
import { announce, byId, counted, element, setPressed, svgElement } from "./dom.js";

export function startControls() {
  onChange(draw);
  byId("threshold").oninput = ({ target }) => change({ threshold: Number(target.value) });
  byId("threshold").onchange = () => announce(byId("shown").parentElement.textContent);
  byId("opacity").oninput = ({ target }) => change({ opacity: Number(target.value) });
  for (const button of viewButtons()) button.onclick = () => toggle(button.dataset.view);
}

/** Switch outlines, labels, boxes or colours per class. */
export function toggle(name) {
  change({ [name]: !state[name] });
}

/** Raise or lower the threshold. */
export function moveThreshold(step) {
  const input = byId("threshold");
  input.valueAsNumber += step;
  change({ threshold: input.valueAsNumber });
  const count = state.current?.answer ? `${counted(shownObjects().length, "object")} at ` : "";
  announce(`${count}${input.value} or more`);
}

function draw() {
  const { current } = state;
  byId("panel").hidden = !current;
  if (!current) return;
  const found = foundObjects(current);
  const count = tally(current);
  byId("shown").textContent = count;
  const noun = count === 1 ? "object" : "objects";
  const total = `${noun} of ${counted(found.length, "candidate")}`;
  byId("found").textContent = current.answer ? total : "not segmented";
  byId("threshold-value").textContent = state.threshold.toFixed(2);
  byId("opacity-value").textContent = `${Math.round(100 * state.opacity)} %`;
  for (const button of viewButtons()) setPressed(button, state[button.dataset.view]);
  drawRuler(found);
  drawClasses(found);
}

const viewButtons = () => document.querySelectorAll("[data-view]");

/** A tick for each score, above the slider that cuts them. */
function drawRuler(found) {
  const { min, max } = byId("threshold");
  const ticks = found.map(({ score, label }) => {
    const x = (100 * (score - min)) / (max - min);
    const isShown = score >= state.threshold && !state.hiddenLabels.has(label);
    return svgElement("path", { d: `M${x.toFixed(2)} 0V12`, class: isShown ? "shown" : "" });
  });
  byId("ruler").replaceChildren(...ticks);
}

/** A switch for each class above the threshold; the elements stay, and with them the focus. */
function drawClasses(found) {
  const group = byId("classes");
  const passing = found.filter(({ score }) => score >= state.threshold);
  const first = new Map(passing.map((object) => [object.label, object]).reverse());
  const labels = [...first.keys()].sort((a, b) => a - b);
  group.hidden = state.model.classes.length < 2;
  const isKnown = labels.map(String).join() === [...group.children].map((b) => b.value).join();
  if (!isKnown) group.replaceChildren(...labels.map((label) => classButton(first.get(label))));
  for (const button of group.children) {
    const label = Number(button.value);
    setPressed(button, !state.hiddenLabels.has(label));
    const count = passing.filter((object) => object.label === label).length;
    button.querySelector(".number").textContent = count;
    const swatch = button.querySelector(".swatch");
    swatch.hidden = !state.byClass;
    swatch.style.background = colorOf(first.get(label));
  }
}

function classButton({ name, label }) {
  const swatch = element("span", { className: "swatch" });
  const number = element("span", { className: "number" });
  const properties = { type: "button", className: "chip", value: label };
  const button = element("button", properties, swatch, name, number);
  button.onclick = () => {
    const hiddenLabels = new Set(state.hiddenLabels);
    if (!hiddenLabels.delete(label)) hiddenLabels.add(label);
    change({ hiddenLabels });
  };
  return button;
}
