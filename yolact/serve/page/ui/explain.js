/** How the mask of the selected object came about: its weights, prototypes, their sum. */

import { loadPrototypes } from "../lib/pictures.js";
import {
  byInfluence, closeUp, combine, drawGrid, drawMasked, largest,
} from "../lib/prototypes.js";
import { isolated } from "../lib/scene.js";
import { change, onChange, state } from "../lib/state.js";
import { byId, element, svgElement } from "./dom.js";
import { focusObject } from "./objects.js";

const SHOWN = 5; // prototypes that get a picture
const TILE = 240; // width of one in pixels, more than is shown

let drawn = ""; // what is on the panel, which is drawn once
let explained = null; // its object

export function startExplain() {
  onChange(draw);
  byId("explain-close").onclick = () => change({ selected: null });
  byId("terms").oninput = ({ target }) => change({ terms: Number(target.value) });
}

function draw() {
  const { selected, current, model, terms } = state;
  const panel = byId("explain");
  const isHidden = !selected || current.isLive || !model.prototypes;
  if (isHidden && panel.querySelector(":focus-visible")) focusObject(explained);
  panel.hidden = isHidden;
  if (panel.hidden) {
    drawn = "";
    return;
  }
  explained = selected;
  const { prototypes } = current;
  if (!prototypes) loadPrototypes(current);
  const wanted = `${current.id} ${selected.index} ${terms} ${Boolean(prototypes)}`;
  if (wanted === drawn) return;
  drawn = wanted;
  panel.classList.toggle("loading", !prototypes);
  byId("explain-text").textContent =
    `${isolated(selected.name)} ${selected.score.toFixed(2)}: a weighted sum of the picture's ` +
    `${selected.coefficients.length} prototypes. Red votes for the object, blue against it.`;
  panel.scrollIntoView({ block: "nearest" });
  if (!prototypes) return;
  const order = byInfluence(prototypes, selected, current);
  const used = order.slice(0, terms);
  drawTerms(order.length, used.length);
  drawBars(selected.coefficients, used);
  drawEquation(current, selected, order, used);
}

function drawTerms(most, count) {
  const slider = byId("terms");
  slider.max = most;
  slider.value = count;
  byId("terms-value").textContent = count === most ? `all ${most}` : `${count} of ${most}`;
}

function drawBars(coefficients, used) {
  const width = 320 / coefficients.length;
  const bars = coefficients.map((weight, k) => {
    const height = Math.max(Math.abs(weight) * 48, 0.75);
    const bar = svgElement("rect", {
      x: (k + 0.15) * width, width: 0.7 * width, y: weight > 0 ? 50 - height : 50, height,
      class: `${weight > 0 ? "for" : "against"} ${used.includes(k) ? "" : "unused"}`,
    });
    bar.append(svgElement("title", {}));
    bar.firstChild.textContent = `prototype ${k}: ${signed(weight)}`;
    return bar;
  });
  const axis = svgElement("path", { d: "M0 50H320", class: "axis" });
  byId("bars").replaceChildren(axis, ...bars);
  const most = used.slice(0, SHOWN).map((k) => `prototype ${k} ${signed(coefficients[k])}`);
  byId("bars").setAttribute("aria-label", `Weights; most important: ${most.join(", ")}`);
}

function drawEquation(picture, object, order, used) {
  const { prototypes } = picture;
  const { coefficients, box } = object;
  const view = closeUp(box, picture);
  const shown = order.slice(0, SHOWN);
  const weighted = shown.map((k) => combine(prototypes, coefficients, [k]));
  const limit = Math.max(...weighted.map(largest));
  const tiles = weighted.map((grid, i) => {
    const k = shown[i];
    const tile = makeTile(picture, `${signed(coefficients[k])} × #${k}`, (canvas) =>
      drawGrid(canvas, grid, prototypes, limit, view),
    );
    tile.classList.toggle("unused", !used.includes(k));
    return tile;
  });
  const sum = combine(prototypes, coefficients, used);
  const total = makeTile(picture, "sum", (canvas) =>
    drawGrid(canvas, sum, prototypes, largest(sum), view),
  );
  const mask = makeTile(picture, "mask", (canvas) =>
    drawMasked(canvas, sum, prototypes, object, picture, view),
  );
  const rest = used.length > SHOWN ? `+ ${used.length - SHOWN} more` : "";
  const sign = (textContent) => element("span", { className: "sign", textContent });
  byId("equation").replaceChildren(...tiles, sign(rest), sign("="), total, sign("→"), mask);
}

const signed = (weight) => `${weight < 0 ? "−" : "+"}${Math.abs(weight).toFixed(2)}`;

function makeTile(picture, caption, paint) {
  const height = Math.round((TILE * picture.height) / picture.width);
  const canvas = element("canvas", { role: "img", ariaLabel: caption, width: TILE, height });
  paint(canvas);
  const tile = element("figure", {}, canvas, element("figcaption", { textContent: caption }));
  tile.className = "tile";
  return tile;
}
