/** Shortcuts, which can be switched off, and the dialog that lists them. */

import { remove, step } from "../lib/pictures.js";
import { change, state } from "../lib/state.js";
import { keep, kept } from "../lib/storage.js";
import { takePicture, toggleCamera } from "./camera.js";
import { moveThreshold, toggle } from "./controls.js";
import { announce, byId, element, takeBack } from "./dom.js";
import { stepObject } from "./objects.js";

const STORED = "yolact-no-keys";

const KEYS = {
  o: ["Add pictures", () => byId("files").click()],
  c: ["Camera on or off", toggleCamera],
  " ": ["Take a picture with the camera", takePicture],
  ArrowLeft: ["Picture before", () => stepPicture(-1)],
  ArrowRight: ["Next picture", () => stepPicture(1)],
  Delete: ["Remove this picture", removePicture],
  j: ["Next object", () => stepObject(1)],
  k: ["Object before", () => stepObject(-1)],
  "[": ["Lower the threshold", () => moveThreshold(-0.05)],
  "]": ["Raise the threshold", () => moveThreshold(0.05)],
  e: viewKey("Outlines", "outlines"),
  l: viewKey("Labels", "labels"),
  b: viewKey("Boxes", "boxes"),
  p: viewKey("A colour per class", "byClass"),
  s: ["Save the picture", () => byId("save-picture").click()], // unless it is disabled
  t: ["Dark or light", () => byId("theme").click()],
  "?": ["This list", () => byId("keys").showModal()],
  Escape: ["Close a message or the explanation", close],
};

const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", Delete: "Delete", Escape: "Esc" };
const HELD = ["ArrowLeft", "ArrowRight", "j", "k", "[", "]"]; // these go on while they are held

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
  const key = nameOf(event.key);
  const isOnSlider = event.target.type === "range" && key.startsWith("Arrow");
  const isOnElement = key === " " && event.target !== document.body; // which it presses
  if (isOnSlider || isOnElement || (event.repeat && !HELD.includes(key))) return;
  if (byId("key-switch").checked || key === "Escape") KEYS[key]?.[1]();
}

function nameOf(key) {
  if (key === "Backspace") return "Delete";
  return key.length === 1 ? key.toLowerCase() : key;
}

function viewKey(text, name) {
  const act = () => {
    toggle(name);
    announce(`${text} ${state[name] ? "on" : "off"}`);
  };
  return [text, act];
}

function stepPicture(distance) {
  step(distance);
  if (state.current) announce(state.current.name);
}

function removePicture() {
  if (!state.current) return;
  announce(`${state.current.name} removed`);
  remove(state.current);
}

function close() {
  if (byId("problem").hidden) change({ selected: null });
  else takeBack();
}
