/** The prototypes of a picture, and the linear combination that makes a mask of them. */

import { extent } from "./scene.js";

const FOR = [204, 28, 44]; // red votes for the object,
const AGAINST = [36, 82, 214]; // blue against it
const ROOM = 1.5; // of a close-up, in sides of the box
const SMALLEST = 0.3; // share of the picture

/** Turn the server's answer into { width, height, grids }, a Float32Array for each prototype. */
export async function decodePrototypes({ width, height, peaks, png }) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const context = makeCanvas(width, height * peaks.length).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height * peaks.length);
  const size = width * height;
  const grids = peaks.map((peak, k) =>
    Float32Array.from({ length: size }, (_, i) => (data[4 * (k * size + i)] * peak) / 255),
  );
  return { width, height, grids };
}

/** Order the prototypes by what they add inside the object's box, most first. */
export function byInfluence(prototypes, object, picture) {
  const cells = cellsInside(object.box, prototypes, picture);
  const influence = prototypes.grids.map((grid, k) => {
    const total = cells.reduce((sum, cell) => sum + grid[cell], 0);
    return Math.abs(object.coefficients[k] * total);
  });
  return [...influence.keys()].sort((a, b) => influence[b] - influence[a]);
}

/** Add up weighted prototypes. */
export function combine(prototypes, coefficients, order) {
  const sum = new Float32Array(prototypes.width * prototypes.height);
  for (const k of order) {
    const grid = prototypes.grids[k];
    for (let i = 0; i < sum.length; i += 1) sum[i] += coefficients[k] * grid[i];
  }
  return sum;
}

/** The largest magnitude in a grid. */
export function largest(grid) {
  return grid.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
}

/** The part of a picture around an object, in shares of its sides: { left, top, size }. */
export function closeUp([x1, y1, x2, y2], { width, height }) {
  const share = Math.max((x2 - x1) / width, (y2 - y1) / height);
  const size = Math.min(Math.max(ROOM * share, SMALLEST), 1);
  const start = (middle) => Math.min(Math.max(middle - size / 2, 0), 1 - size);
  return { left: start((x1 + x2) / 2 / width), top: start((y1 + y2) / 2 / height), size };
}

/** Draw numbers red above 0 and blue below, full at `limit`; weak ones are lifted to be seen. */
export function drawGrid(canvas, grid, { width, height }, limit, view) {
  const image = new ImageData(width, height);
  grid.forEach((value, i) => {
    const alpha = 255 * Math.min(1, Math.abs(value) / limit) ** 0.6;
    image.data.set([...(value > 0 ? FOR : AGAINST), alpha], 4 * i);
  });
  drawPart(canvas.getContext("2d"), canvasOf(image), view);
}

/** Draw what of the picture is inside the mask that a sum makes, the rest faint. */
export function drawMasked(canvas, sum, prototypes, object, picture, view) {
  const image = new ImageData(prototypes.width, prototypes.height);
  for (const cell of cellsInside(extent(object), prototypes, picture)) {
    if (sum[cell] > 0) image.data[4 * cell + 3] = 255;
  }
  const context = canvas.getContext("2d");
  drawPart(context, canvasOf(image), view);
  context.globalCompositeOperation = "source-in";
  drawPart(context, picture.bitmap, view);
  context.globalCompositeOperation = "destination-over";
  context.globalAlpha = 0.18;
  drawPart(context, picture.bitmap, view);
}

/** The cells of the grid in a box, with a margin of one. */
function cellsInside([x1, y1, x2, y2], { width, height }, picture) {
  const columns = span(x1, x2, width / picture.width, width);
  return span(y1, y2, height / picture.height, height).flatMap((y) =>
    columns.map((x) => y * width + x),
  );
}

function span(start, end, scale, count) {
  const first = Math.max(0, Math.ceil(start * scale - 1));
  const last = Math.min(count, Math.ceil(end * scale + 1));
  return Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i);
}

function drawPart(context, source, { left, top, size }) {
  const { width, height } = source;
  const part = [left * width, top * height, size * width, size * height];
  context.drawImage(source, ...part, 0, 0, context.canvas.width, context.canvas.height);
}

function canvasOf(image) {
  const canvas = makeCanvas(image.width, image.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function makeCanvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}
