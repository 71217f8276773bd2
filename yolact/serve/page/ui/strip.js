/** The pictures in a row, to choose one. */

import { remove, retry, show } from "../lib/pictures.js";
import { onChange, shownObjects, state, tally } from "../lib/state.js";
import { byId, counted, element } from "./dom.js";

const items = new Map(); // picture -> its element

export function startStrip() {
  onChange(draw);
}

function draw() {
  const { pictures, current } = state;
  byId("strip").hidden = pictures.length === 0;
  for (const [picture, item] of items) {
    if (!pictures.includes(picture)) {
      const neighbour = item.nextElementSibling ?? item.previousElementSibling;
      const isFocused = item.contains(document.activeElement);
      item.remove();
      items.delete(picture);
      if (isFocused) (neighbour?.firstChild ?? byId("choose")).focus();
    }
  }
  for (const picture of pictures) {
    if (!items.has(picture)) {
      items.set(picture, makeItem(picture));
      byId("strip").append(items.get(picture));
    }
    fill(items.get(picture), picture, picture === current);
  }
}

function makeItem(picture) {
  const count = element("span", { className: "tally" });
  const properties = { type: "button", className: "thumbnail" };
  const open = element("button", properties, picture.thumbnail, count);
  open.onclick = () => {
    show(picture);
    if (picture.failed) retry(picture);
  };
  const close = element("button", { type: "button", className: "remove", textContent: "×" });
  close.ariaLabel = `Remove ${picture.name}`;
  close.onclick = () => remove(picture);
  return element("li", {}, open, close);
}

function fill(item, picture, isCurrent) {
  const [open] = item.children;
  open.querySelector(".tally").textContent = tally(picture);
  const reason = picture.failed ? `: ${picture.failed} (choose it to try again)` : "";
  open.title = `${picture.name}${reason}`;
  const count = counted(shownObjects(picture).length, "object");
  open.ariaLabel = `${picture.name}, ${picture.answer ? count : `not segmented${reason}`}`;
  if (isCurrent && open.ariaCurrent !== "true") {
    item.scrollIntoView({ inline: "nearest", block: "nearest" });
  }
  open.ariaCurrent = String(isCurrent);
}
