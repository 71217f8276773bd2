/** Pictures in: the file picker, drag and drop, the clipboard. */

import { addFiles } from "../lib/pictures.js";
import { byId } from "./dom.js";

export function startIntake() {
  const input = byId("files");
  for (const id of ["open", "choose"]) byId(id).onclick = () => input.click();
  input.onchange = () => {
    addFiles([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  };
  addEventListener("paste", (event) => addFiles([...event.clipboardData.files]));
  startDrop();
}

function startDrop() {
  const { dataset } = document.body;
  let depth = 0; // the page's elements are entered and left one by one
  const enter = (event, change) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    depth = Math.max(0, depth + change);
    if (depth) dataset.dropping = "";
    else delete dataset.dropping;
  };
  addEventListener("dragenter", (event) => enter(event, 1));
  addEventListener("dragleave", (event) => enter(event, -1));
  addEventListener("dragover", (event) => enter(event, 0));
  addEventListener("drop", (event) => {
    enter(event, -depth);
    addFiles([...(event.dataTransfer?.files ?? [])]);
  });
}
