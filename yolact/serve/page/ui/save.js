/** Downloads: pictures and files of what is shown. */

import { toCoco, toLabelme } from "../lib/formats.js";
import { drawScene, extent, pathOf } from "../lib/scene.js";
import { colorOf, onChange, shownObjects, state } from "../lib/state.js";
import { byId, counted, element } from "./dom.js";

const SCREEN = 1000; // pixels of a picture for which lines and letters have their usual size

export function startSaves() {
  byId("save-picture").onclick = savePicture;
  byId("save-cutout").onclick = saveCutout;
  byId("save-coco").onclick = saveCoco;
  byId("save-labelme").onclick = saveLabelme;
  onChange(draw);
}

function savePicture() {
  const { current } = state;
  if (!current?.bitmap) return; // another picture, whose pixels are on their way
  const canvas = element("canvas", { width: current.width, height: current.height });
  const unit = Math.max(1, Math.max(current.width, current.height) / SCREEN);
  const view = { ...state, selected: null, hovered: null, colorOf };
  drawScene(canvas.getContext("2d"), current.bitmap, shownObjects(), view, unit);
  saveCanvas(canvas, "objects");
}

/** The selected object alone, or all shown ones in place, on nothing. */
function saveCutout() {
  const { current, selected } = state;
  if (!current?.bitmap) return;
  const [x1, y1, x2, y2] = outward(selected ? extent(selected) : [0, 0, Infinity, Infinity], current);
  const canvas = element("canvas", { width: x2 - x1, height: y2 - y1 });
  const context = canvas.getContext("2d");
  context.translate(-x1, -y1);
  for (const object of selected ? [selected] : shownObjects()) {
    context.fill(pathOf(object), "evenodd");
  }
  context.globalCompositeOperation = "source-in";
  context.drawImage(current.bitmap, 0, 0);
  saveCanvas(canvas, "cutout");
}

function saveCoco() {
  saveJson(toCoco(answered(), shownObjects, state.model.classes), "coco.json");
}

function saveLabelme() {
  saveJson(toLabelme(state.current, shownObjects()), `${stem(state.current.name)}.json`);
}

function draw() {
  const { current, selected, pictures } = state;
  const isReady = Boolean(current?.answer && current.bitmap) && !current.isLive;
  for (const button of document.querySelectorAll(".saves button")) button.disabled = !isReady;
  byId("save-cutout").title = selected
    ? `The selected ${selected.name} alone, as PNG`
    : "The objects without their background, as PNG";
  byId("save-coco").title = `The objects of ${counted(answered().length, "picture")}`;
  if (pictures.some(({ answer, failed }) => !answer && !failed)) byId("save-coco").disabled = true;
}

const answered = () => state.pictures.filter(({ answer }) => answer);

function outward([x1, y1, x2, y2], { width, height }) {
  return [
    Math.max(0, Math.floor(x1)), Math.max(0, Math.floor(y1)),
    Math.min(width, Math.ceil(x2)), Math.min(height, Math.ceil(y2)),
  ];
}

function saveCanvas(canvas, what) {
  const name = `${stem(state.current.name)}-${what}.png`;
  canvas.toBlob((blob) => save(blob, name), "image/png");
}

function saveJson(content, name) {
  save(new Blob([JSON.stringify(content)], { type: "application/json" }), name);
}

function save(blob, download) {
  const href = URL.createObjectURL(blob);
  element("a", { href, download }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

const stem = (name) => name.replace(/\.[^.]*$/, "");
