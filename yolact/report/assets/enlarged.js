"use strict";
// One image: the ground truth beside the detections, and a list of both.

class Enlarged {
  constructor(article) {
    this.article = article;
    this.find = (name) => article.querySelector(`#${name}`);
    // Not "mouseover", which also comes when an image appears under a pointer at rest.
    for (const name of ["mousemove", "focusin"]) article.addEventListener(name, (event) => this.pick(event));
    for (const name of ["mouseleave", "focusout"]) article.addEventListener(name, () => this.mark([]));
  }

  /** Show an image, which is one of several. */
  open(image, images) {
    const isNew = this.image !== image || this.article.hidden;
    if (this.article.hidden) window.scrollTo(0, 0);
    this.image = image;
    this.article.hidden = false;
    const place = images.indexOf(image);
    this.find("file").textContent = image.file;
    this.find("place").textContent = place < 0 ? "not among those shown" : `${place + 1} of ${images.length}`;
    this.link("previous", images[place - 1]);
    this.link("next", images[place + 1]);
    if (isNew) this.makePanels();
    this.draw();
    if (!isNew) return;
    this.find("file").focus({ preventScroll: true });
    const near = [images[place - 1], images[place + 1]].filter((other) => other?.picture);
    for (const { picture } of near) new Image().src = `viewer/large/${picture}`; // comes at once then
  }

  close() {
    this.article.hidden = true;
  }

  link(name, image) {
    const link = this.find(name);
    if (image) link.href = `#image/${image.id}`;
    else link.removeAttribute("href");
  }

  makePanels() {
    this.panels = ["objects", "detections"].map((side) => {
      const canvas = makeCanvas(this.image, "large");
      const labels = make("div", { class: "labels", "aria-hidden": "true" });
      canvas.append(labels);
      const caption = make("figcaption");
      return { side, caption, labels, svg: canvas.querySelector("svg"), figure: make("figure", {}, caption, canvas) };
    });
    this.find("pair").replaceChildren(...this.panels.map((panel) => panel.figure));
  }

  draw() {
    const { shown, counts } = this.image;
    for (const { side, caption, labels, svg } of this.panels) {
      const items = shown.filter((item) => item.side === side);
      drawItems(svg, this.image, items);
      labels.replaceChildren(...items.map((item) => this.makeLabel(item)));
      caption.textContent =
        side === "objects"
          ? `Ground truth: ${counts.right + counts.missed} objects, ${counts.missed} missed`
          : `Detected: ${counts.right + counts.false}, ${counts.false} wrong`;
    }
    const kinds = Object.keys(KINDS);
    const rank = (item) => (item.kind === "right" ? kinds.length : kinds.indexOf(item.kind));
    const listed = shown.filter((item) => item.side === "detections" || item.kind === "missed");
    listed.sort((a, b) => rank(a) - rank(b));
    this.find("items").replaceChildren(...listed.map(makeRow));
  }

  makeLabel(item) {
    const [width, height] = viewOf(this.image);
    const [x, y, w] = boxOf(this.image, item);
    const isRight = x > 0.5 * width;
    const across = isRight ? `right: ${100 - (100 * (x + w)) / width}%` : `left: ${(100 * x) / width}%`;
    const style = `${across}; top: ${(100 * Math.max(y, 0)) / height}%`;
    const score = item.score === undefined ? "" : ` ${decimals(item.score)}`;
    const text = `${isolated(REPORT.names[item.label])}${score}`;
    const above = y > 0.06 * height ? "above" : "";
    return make("span", { class: `label ${item.kind} ${above}`, style, "data-key": keyOf(item) }, text);
  }

  /** Emphasise what the pointer or the focus is on, and what it was paired with. */
  pick(event) {
    const key = event.target.closest("[data-key]")?.dataset.key;
    const item = this.image.shown.find((item) => keyOf(item) === key);
    const keys = item ? [key] : [];
    if (item?.pair) keys.push(`detections-${item.pair.detection}`, `objects-${item.pair.object}`);
    this.mark(keys);
  }

  mark(keys) {
    this.find("pair").classList.toggle("picking", keys.length > 0);
    for (const element of this.article.querySelectorAll("[data-key]")) {
      element.classList.toggle("picked", keys.includes(element.dataset.key));
    }
  }
}

function makeRow(item) {
  const score = item.score === undefined ? "" : decimals(item.score);
  const button = make(
    "button",
    { type: "button", class: "row", "data-key": keyOf(item) },
    make("span", { class: `swatch ${item.kind}` }),
    make("b", {}, REPORT.names[item.label]),
    make("span", { class: "score" }, score),
    make("span", { class: "quiet" }, explain(item)),
  );
  return make("li", {}, button);
}

/** A name that is written from right to left keeps to itself. */
const isolated = (name) => `\u2068${name}\u2069`;

/** Say in words what an item is. */
function explain({ kind, pair, other }) {
  const name = isolated(REPORT.names[other]);
  const overlap = pair && decimals(pair.overlap);
  const words = {
    right: `IoU ${overlap}`,
    missed: pair ? `missed, best IoU ${overlap}` : "missed",
    confused: `really ${name}, IoU ${overlap}`,
    duplicate: `duplicate of ${name}, IoU ${overlap}`,
    mask: `poor mask, IoU ${overlap} (box ${pair && decimals(pair.box)})`,
    box: `poor box, IoU ${overlap}`,
    background: "nothing there",
  };
  return words[kind];
}
