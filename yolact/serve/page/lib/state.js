/** What the page shows. Everything that draws reads it; everything that acts calls `change`. */

/** Lower scores are not asked for, so the slider ends here. */
export const LOWEST_SCORE = 0.1;

export const state = {
  model: null, // what /api/model answers
  pictures: [], // see lib/pictures.js
  current: null, // the one on stage
  selected: null, // an object of its answer
  hovered: null,
  terms: Infinity, // prototypes in the sum of the selected object
  threshold: LOWEST_SCORE, // until the model has said its own
  hiddenLabels: new Set(),
  opacity: 0.45,
  outlines: true,
  labels: true,
  boxes: false,
  byClass: false,
};

const listeners = [];
let isScheduled = false;

/** Call a function after each change, at most once a frame. */
export function onChange(listener) {
  listeners.push(listener);
}

export function change(values = {}) {
  Object.assign(state, values);
  const shown = shownObjects();
  if (!shown.includes(state.selected)) state.selected = null; // nobody sees it
  if (!shown.includes(state.hovered)) state.hovered = null;
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    listeners.forEach((listener) => listener());
  });
}

/** The objects of a picture, all that were found. */
export const foundObjects = (picture) => picture?.answer?.objects ?? [];

/** Those of them that pass the threshold and the classes. */
export function shownObjects(picture = state.current) {
  return foundObjects(picture).filter(
    ({ score, label }) => score >= state.threshold && !state.hiddenLabels.has(label),
  );
}

/** How many these are, or what stands for it without an answer. */
export function tally(picture) {
  if (picture.answer) return shownObjects(picture).length;
  return picture.failed ? "!" : "…";
}

export function colorOf(object) {
  const { palette } = state.model;
  return palette[(state.byClass ? object.label : object.index) % palette.length];
}
