/** A picture and its objects on a canvas, at any scale. */

const LABEL = { size: 12, height: 20, margin: 6 }; // screen pixels
const FADED = 0.45; // of objects beside the selected one
const FONT = '600 1px -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

/** The box of an object, and what of its outlines is outside. */
export function extent({ box, polygons }) {
  const bounds = [...box];
  for (const { outline } of polygons) {
    outline.forEach((value, i) => {
      bounds[i % 2] = Math.min(bounds[i % 2], value);
      bounds[2 + (i % 2)] = Math.max(bounds[2 + (i % 2)], value);
    });
  }
  return bounds;
}

/** The lines of an object's mask in image pixels; filled by the even-odd rule. */
export function pathOf(object) {
  object.path ??= tracePath(object.polygons);
  return object.path;
}

/**
 * Draw a picture and objects, the best on top.
 *
 * @param context of a canvas whose units are image pixels
 * @param unit image pixels in a screen pixel, for lines and letters
 * @param view { opacity, outlines, labels, boxes, selected, hovered, colorOf }
 */
export function drawScene(context, bitmap, objects, view, unit) {
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0);
  const worstFirst = [...objects].reverse();
  worstFirst.forEach((object) => drawMask(context, object, view, unit));
  if (view.boxes) worstFirst.forEach((object) => drawBox(context, object, view, unit));
  if (view.labels) drawLabels(context, objects, view, unit, bitmap);
}

/** A name that is written from right to left keeps to itself. */
export const isolated = (name) => `\u2068${name}\u2069`;

/** The object whose mask holds a point, the smallest of several. */
export function objectAt(context, objects, x, y) {
  const hit = objects.filter((object) => context.isPointInPath(pathOf(object), x, y, "evenodd"));
  return hit.sort((one, other) => one.area - other.area)[0] ?? null;
}

/** White or near black, whichever can be read on a colour. */
function inkOn(color) {
  const channels = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const [red, green, blue] = channels.map((value) => (value / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.25 ? "#fff" : "#1e1e1e";
}

function drawMask(context, object, view, unit) {
  const color = view.colorOf(object);
  const isActive = object === view.selected || object === view.hovered;
  const strength = view.selected && !isActive ? FADED : 1;
  context.fillStyle = context.strokeStyle = color;
  context.globalAlpha = view.opacity * strength;
  context.fill(pathOf(object), "evenodd");
  if (view.outlines || isActive) {
    context.globalAlpha = strength;
    context.lineJoin = "round";
    if (isActive) stroke(context, pathOf(object), "#fff", 5 * unit);
    stroke(context, pathOf(object), color, (isActive ? 2.5 : 1.5) * unit);
  }
  context.globalAlpha = 1;
}

function stroke(context, path, color, width) {
  context.strokeStyle = color;
  context.lineWidth = width;
  context.stroke(path);
}

function drawBox(context, object, view, unit) {
  const [x1, y1, x2, y2] = object.box;
  context.strokeStyle = view.colorOf(object);
  context.lineWidth = 1.5 * unit;
  context.globalAlpha = view.selected && object !== view.selected ? FADED : 1;
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  context.globalAlpha = 1;
}

function drawLabels(context, objects, view, unit, bitmap) {
  context.font = FONT.replace("1px", `${LABEL.size * unit}px`);
  context.textBaseline = "middle";
  const taken = [];
  const labels = objects.filter((object) => !view.selected || object === view.selected);
  const texts = labels.map(({ name, score }) => `${isolated(name)} ${score.toFixed(2)}`);
  labels.forEach(({ box }, i) => {
    const width = context.measureText(texts[i]).width + 2 * LABEL.margin * unit;
    taken.push(findPlace(box, width, LABEL.height * unit, bitmap, taken));
  });
  for (const [i, object] of [...labels.entries()].reverse()) {
    const place = taken[i];
    context.fillStyle = view.colorOf(object);
    context.beginPath();
    context.roundRect(place.x, place.y, place.width, place.height, 4 * unit);
    context.fill();
    context.fillStyle = inkOn(view.colorOf(object));
    context.fillText(texts[i], place.x + LABEL.margin * unit, place.y + place.height * 0.54);
  }
}

/** Above the box, inside it, or below: the first place inside the picture that is free. */
function findPlace([x1, y1, , y2], width, height, bitmap, taken) {
  const x = Math.max(0, Math.min(x1, bitmap.width - width));
  const tops = [y1 - height, y1, y2, y2 - height];
  const places = tops
    .filter((y) => y >= 0 && y + height <= bitmap.height)
    .map((y) => ({ x, y, width, height }));
  const isFree = (place) => !taken.some((other) => overlap(place, other));
  return places.find(isFree) ?? places[0] ?? { x, y: 0, width, height };
}

function overlap(one, other) {
  return (
    one.x < other.x + other.width && other.x < one.x + one.width &&
    one.y < other.y + other.height && other.y < one.y + one.height
  );
}

function tracePath(polygons) {
  const path = new Path2D();
  for (const ring of polygons.flatMap(({ outline, holes }) => [outline, ...holes])) {
    path.moveTo(ring[0], ring[1]);
    for (let i = 2; i < ring.length; i += 2) path.lineTo(ring[i], ring[i + 1]);
    path.closePath();
  }
  return path;
}
