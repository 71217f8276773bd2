"use strict";
// The thresholds and the filters, and what follows them: counts, gallery, enlarged image.

const find = (id) => document.getElementById(id);
const images = REPORT.images;
const pictured = images.filter((image) => image.outlines);
const state = { score: REPORT.score, overlap: REPORT.overlap, label: -1, kinds: new Set() };
let ordered = pictured;
let shown = []; // those of them that pass the filters

images.forEach(unpack);
const gallery = new Gallery(find("gallery"), pictured);
const enlarged = new Enlarged(find("enlarged"));

function isShown({ kind, label, other }) {
  const isOfClass = [-1, label, kind === "confused" ? other : label].includes(state.label);
  return isOfClass && (state.kinds.size === 0 || state.kinds.has(kind));
}

/** Judge all images anew; without `reorder` they keep their places, as while a slider moves. */
function refresh(reorder = true) {
  for (const image of images) {
    const items = itemsOf(image, state.score, state.overlap);
    image.counts = count(items, state.label);
    if (image.outlines) image.shown = items.filter(isShown);
  }
  if (reorder) ordered = [...pictured].sort(ORDERS[find("order").value]);
  const isFiltered = state.label >= 0 || state.kinds.size > 0;
  shown = ordered.filter((image) => !isFiltered || image.shown.length);
  showCounts();
  showThresholds();
  gallery.show(shown, reorder);
  route();
}

const errorsOf = ({ counts }) => counts.missed + counts.false;
const ORDERS = {
  errors: (a, b) => errorsOf(b) - errorsOf(a),
  file: (a, b) => a.file.localeCompare(b.file),
};

function showCounts() {
  const sum = (pick) => images.reduce((total, image) => total + pick(image.counts), 0);
  const right = sum((counts) => counts.right);
  const missed = sum((counts) => counts.missed);
  const wrong = sum((counts) => counts.false);
  const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
  const values = { right, missed, false: wrong };
  const shares = {
    precision: percent(right, right + wrong),
    recall: percent(right, right + missed),
    F1: percent(2 * right, 2 * right + wrong + missed),
  };
  for (const [name, value] of Object.entries({ ...values, ...shares })) {
    find(`count-${name}`).textContent = value;
  }
  for (const number of find("kinds").querySelectorAll(".number")) {
    number.textContent = sum((counts) => counts.kinds[number.dataset.kind]);
    number.classList.toggle("none", number.textContent === "0");
  }
  find("shown").textContent =
    shown.length === pictured.length ? `${shown.length} images` : `${shown.length} of ${pictured.length} images`;
}

function showThresholds() {
  for (const name of ["score", "overlap"]) {
    const text = decimals(state[name]);
    find(`${name}-value`).textContent = text;
    find(name).setAttribute("aria-valuetext", text); // its own value is a number of percent
  }
  find("reset").hidden = state.score === REPORT.score && state.overlap === REPORT.overlap;
}

function setSliders() {
  find("score").value = Math.round(state.score / 100);
  find("overlap").value = Math.round(state.overlap / 100);
}

/** Show what the address asks for: the numbers, all images, or one. */
function route() {
  const [, part, id] = location.hash.match(/^#(\w+)\/?(\d*)$/) ?? [];
  const image = part === "image" && pictured.find((image) => `${image.id}` === id);
  document.body.dataset.part = part === "numbers" ? "numbers" : "images";
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.hash === `#${document.body.dataset.part}`;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.classList.toggle("is-enlarged", Boolean(image));
  if (image) {
    enlarged.open(image, shown);
  } else if (!enlarged.article.hidden) {
    enlarged.close();
    gallery.focus(enlarged.image);
  }
}

function makeControls() {
  for (const [kind, title] of Object.entries(KINDS)) {
    if (kind === "mask" && REPORT.kind === "box") continue;
    const swatch = make("span", { class: `swatch ${kind}` });
    const number = make("span", { class: "number", "data-kind": kind });
    const button = make("button", { type: "button", class: "row", "aria-pressed": "false" }, swatch, title, number);
    button.addEventListener("click", () => toggleKind(kind, button));
    find("kinds").append(button);
  }
  const names = REPORT.names.map((name, label) => [name, label]);
  names.sort(([a], [b]) => a.localeCompare(b));
  find("class").append(...names.map(([name, value]) => make("option", { value }, name)));
  find("score").min = Math.ceil(REPORT.leastScore / 100);
  if (matchMedia("(max-width: 860px)").matches) find("filters").open = false;
  setSliders();
}

function toggleKind(kind, button) {
  if (!state.kinds.delete(kind)) state.kinds.add(kind);
  button.setAttribute("aria-pressed", state.kinds.has(kind));
  refresh();
}

function listen() {
  for (const name of ["score", "overlap"]) {
    find(name).addEventListener("input", (event) => {
      state[name] = 100 * event.target.valueAsNumber;
      refresh(false);
    });
    find(name).addEventListener("change", () => refresh());
  }
  find("reset").addEventListener("click", () => {
    Object.assign(state, { score: REPORT.score, overlap: REPORT.overlap });
    setSliders();
    refresh();
    find("score").focus();
  });
  find("class").addEventListener("change", (event) => {
    state.label = Number(event.target.value);
    refresh();
  });
  find("order").addEventListener("change", () => refresh());
  window.addEventListener("hashchange", route);
  window.addEventListener("beforeprint", () => gallery.drawAll());
  document.addEventListener("keydown", onKey);
}

/** Step through the images with the arrow keys, which sliders and lists keep for themselves. */
function onKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select")) return;
  if (document.body.dataset.part === "numbers") return;
  const isEnlarged = !enlarged.article.hidden;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && isEnlarged) find(step < 0 ? "previous" : "next").click();
  else if (step) gallery.step(step);
  else if (event.key === "Escape" && isEnlarged) location.hash = "images";
}

makeControls();
listen();
refresh();
