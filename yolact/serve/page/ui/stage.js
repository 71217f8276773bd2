/** The picture on stage with its objects. */

import { drawScene, objectAt } from "../lib/scene.js";
import { change, colorOf, onChange, shownObjects, state } from "../lib/state.js";
import { byId } from "./dom.js";

const MOST_ENLARGED = 3; // times, of small pictures

export function startStage() {
  onChange(draw);
  new ResizeObserver(draw).observe(byId("stage"));
  const canvas = byId("canvas");
  canvas.onpointermove = (event) => hover(objectUnder(event));
  canvas.onpointerleave = () => hover(null);
  canvas.onclick = (event) => change({ selected: objectUnder(event), terms: Infinity });
}

function draw() {
  const { current } = state;
  const canvas = byId("canvas");
  byId("empty").hidden = current !== null;
  byId("progress").hidden = !current || Boolean(current.answer || current.failed || current.isLive);
  canvas.hidden = !current;
  if (!current?.bitmap) return; // what was there stays until the pixels have come
  const objects = shownObjects();
  const scale = fit(canvas, current.bitmap);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  drawScene(context, current.bitmap, objects, { ...state, colorOf }, devicePixelRatio / scale);
  const content = current.answer ? describe(objects) : "not segmented";
  canvas.setAttribute("aria-label", `${current.name}, ${content}`);
}

/** Size the canvas as large as the stage allows; return canvas pixels per image pixel. */
function fit(canvas, { width, height }) {
  byId("stage").style.setProperty("--ratio", width / height);
  const { clientWidth, clientHeight } = byId("stage");
  const scale = Math.min(clientWidth / width, clientHeight / height, MOST_ENLARGED);
  canvas.style.width = `${Math.round(width * scale)}px`;
  canvas.style.height = `${Math.round(height * scale)}px`;
  canvas.width = Math.round(width * scale * devicePixelRatio);
  canvas.height = Math.round(height * scale * devicePixelRatio);
  return canvas.width / width;
}

function describe(objects) {
  const counts = new Map();
  objects.forEach(({ name }) => counts.set(name, (counts.get(name) ?? 0) + 1));
  return [...counts].map(([name, count]) => `${count} × ${name}`).join(", ") || "no objects";
}

function objectUnder(event) {
  const canvas = byId("canvas");
  const ratio = canvas.width / canvas.clientWidth;
  const context = canvas.getContext("2d"); // still in image pixels, so points are transformed
  return objectAt(context, shownObjects(), event.offsetX * ratio, event.offsetY * ratio);
}

function hover(object) {
  byId("canvas").classList.toggle("over-object", object !== null);
  if (object !== state.hovered) change({ hovered: object });
}
