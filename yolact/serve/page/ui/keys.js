/** Shortcuts, which can be switched off, and the dialog that lists them. */

import { remove, step } from "../lib/pictures.js";
import { change, state } from "../lib/state.js";
import { keep, kept } from "../lib/storage.js";
import { takePicture, toggleCamera } from "./camera.js";
import { moveThreshold, toggle } from "./controls.js";
import { byId, element, takeBack } from "./dom.js";
import { stepObject } from "./objects.js";
import { savePicture } from "./save.js";

const STORED = "yolact-no-keys";

const KEYS = {
  o: ["Add pictures", () => byId("files").click()],
  c: ["Camera on or off", toggleCamera],
  ArrowLeft: ["Picture before", () => step(-1)],
  ArrowRight: ["Next picture", () => step(1)],
  Delete: ["Remove this picture", () => state.current && remove(state.current)],
  j: ["Next object", () => stepObject(1)],
  k: ["Object before", () => stepObject(-1)],
  "[": ["Lower the threshold", () => moveThreshold(-0.05)],
  "]": ["Raise the threshold", () => moveThreshold(0.05)],
  e: ["Outlines", () => toggle("outlines")],
  l: ["Labels", () => toggle("labels")],
  b: ["Boxes", () => toggle("boxes")],
  p: ["A colour per class", () => toggle("byClass")],
  s: ["Save the picture", savePicture],
  t: ["Dark or light", () => byId("theme").click()],
  "?": ["This list", () => byId("keys").showModal()],
};

const NAMES = { ArrowLeft: "←", ArrowRight: "→", Delete: "Delete" };

export function startKeys() {
  const rows = Object.entries(KEYS).flatMap(([key, [text]]) => [
    element("dt", {}, element("kbd", { textContent: NAMES[key] ?? key.toUpperCase() })),
    element("dd", { textContent: text }),
  ]);
  byId("key-list").append(...rows);
  byId("help").onclick = () => byId("keys").showModal();
  const toggleSwitch = byId("key-switch");
  toggleSwitch.checked = !kept(STORED);
  toggleSwitch.onchange = () => keep(STORED, toggleSwitch.checked ? "" : "1");
  addEventListener("keydown", press);
}

function press(event) {
  if (byId("keys").open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (byId("problem").hidden) change({ selected: null });
    else takeBack("");
  }
  const isOnSlider = event.target.type === "range" && event.key.startsWith("Arrow");
  if (isOnSlider || !byId("key-switch").checked) return;
  if (event.key === " " && event.target === document.body) takePicture();
  const [, act] = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key] ?? [];
  act?.();
}
