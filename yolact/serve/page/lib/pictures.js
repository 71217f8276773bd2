/**
 * The pictures of the strip.
 *
 * A picture: { id, name, blob, width, height, thumbnail, bitmap, answer, prototypes, isLive }.
 * Only the one on stage keeps its pixels (`bitmap`); `answer` is null until the server answered,
 * `failed` is why it did not, and `requests` ends what is asked about the picture.
 */

import { getPrototypes, segment } from "./api.js";
import { decodePrototypes } from "./prototypes.js";
import { LOWEST_SCORE, change, shownObjects, state } from "./state.js";
import { announce, complain, counted, takeBack } from "../ui/dom.js";

const THUMBNAIL_HEIGHT = 112; // pixels, twice what is shown
const PAUSE = 5000; // milliseconds before prototypes are asked for again
const TOLERANCE = 0.5; // of polygons: half a pixel is not seen
const QUERY = { score_threshold: LOWEST_SCORE, tolerance: TOLERANCE };

let ids = 0;
let queue = Promise.resolve();

/** Add image files, show the first of them, and segment them one after the other. */
export async function addFiles(files) {
  let isFirst = true;
  for (const file of files) {
    try {
      await add(file, isFirst);
      isFirst = false;
    } catch (error) {
      complain(error.message, file.name);
    }
  }
}

/** Put a picture on stage, null for none. */
export async function show(picture) {
  if (state.current !== picture) release(state.current);
  change({ current: picture, selected: null, hovered: null });
  if (!picture || picture.bitmap || picture.isLive) return;
  const bitmap = await createImageBitmap(picture.blob);
  if (picture !== state.current) {
    bitmap.close(); // another one was faster
    return;
  }
  picture.bitmap = bitmap;
  change();
}

export function remove(picture) {
  const place = state.pictures.indexOf(picture);
  const pictures = state.pictures.filter((other) => other !== picture);
  picture.requests?.abort();
  change({ pictures });
  if (picture === state.current) show(pictures[Math.min(place, pictures.length - 1)] ?? null);
}

/** Show the next picture of the strip, or the one before. */
export function step(distance) {
  const place = state.pictures.indexOf(state.current) + distance;
  if (state.pictures[place]) show(state.pictures[place]);
}

/** Fetch the prototypes of a picture, once; after a failure not before a while. */
export function loadPrototypes(picture) {
  picture.loading ??= getPrototypes(picture.blob, picture.requests.signal)
    .then(decodePrototypes)
    .then((prototypes) => {
      picture.prototypes = prototypes;
      change();
    })
    .catch((error) => {
      if (picture.requests.signal.aborted) return;
      complain(error.message);
      setTimeout(() => (picture.loading = null), PAUSE);
    });
}

/** Find the objects of a picture that failed, after those that wait. */
export function retry(picture) {
  takeBack(({ line }) => line === `${picture.name}: ${picture.failed}`);
  picture.failed = null;
  change();
  queue = queue.then(() => segmentPicture(picture));
}

/** Find the objects of a camera's frame. */
export const segmentFrame = (blob) => segment(blob, { ...QUERY, masks: "polygons" });

async function add(file, isFirst) {
  const { upload_bytes: most } = state.model;
  if (file.size > most) throw new Error(`larger than ${Math.floor(most / 1e6)} MB`);
  const blob = await copyOf(file);
  const bitmap = await createImageBitmap(blob).catch(() => {
    throw new Error("not an image that this browser can show");
  });
  const { width, height } = bitmap;
  ids += 1;
  const picture = { id: ids, name: freeName(file.name || "pasted.png"), blob, width, height };
  const requests = new AbortController();
  Object.assign(picture, { bitmap, requests, answer: null, thumbnail: thumbnail(bitmap) });
  change({ pictures: [...state.pictures, picture] });
  if (isFirst) show(picture);
  else release(picture);
  queue = queue.then(() => segmentPicture(picture));
}

/** Read a file once: it may be moved or changed before the server has seen it. */
async function copyOf(file) {
  const content = await file.arrayBuffer().catch(() => {
    throw new Error("it cannot be read");
  });
  return new Blob([content], { type: file.type });
}

/** Number a name that another picture has, as what is pasted is always called image.png. */
function freeName(name) {
  const taken = new Set(state.pictures.map((picture) => picture.name));
  const [, stem, suffix] = name.match(/^(.*?)(\.[^.]*)?$/s);
  let free = name;
  for (let number = 2; taken.has(free); number += 1) free = `${stem}-${number}${suffix ?? ""}`;
  return free;
}

async function segmentPicture(picture) {
  if (!state.pictures.includes(picture)) return; // removed while it waited
  try {
    const answer = await segment(picture.blob, QUERY, picture.requests.signal);
    if (answer.width !== picture.width || answer.height !== picture.height) {
      throw new Error("this browser shows it turned otherwise: save it upright first");
    }
    picture.answer = answer;
    announce(`${picture.name}: ${counted(shownObjects(picture).length, "object")}`);
  } catch (error) {
    if (picture.requests.signal.aborted) return;
    picture.failed = error.message;
    complain(error.message, picture.name);
  }
  change();
}

function release(picture) {
  if (!picture?.bitmap || picture.isLive) return;
  picture.bitmap.close();
  picture.bitmap = null;
}

function thumbnail(bitmap) {
  const canvas = document.createElement("canvas");
  canvas.height = THUMBNAIL_HEIGHT;
  const scale = THUMBNAIL_HEIGHT / bitmap.height;
  canvas.width = Math.min(Math.max(bitmap.width * scale, 40), 2.4 * THUMBNAIL_HEIGHT);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const width = canvas.width / scale; // the middle of what is wider
  context.drawImage(
    bitmap, (bitmap.width - width) / 2, 0, width, bitmap.height, 0, 0, canvas.width, canvas.height,
  );
  return canvas;
}
