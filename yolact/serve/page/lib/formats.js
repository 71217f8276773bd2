/** Objects in the files of other programs. */

/** A COCO dataset of pictures and their objects, masks in run lengths. */
export function toCoco(pictures, objectsOf, classes) {
  const images = pictures.map(({ name, width, height }, i) => ({
    id: i + 1, file_name: name, width, height,
  }));
  const annotations = pictures.flatMap((picture, i) =>
    objectsOf(picture).map((object) => cocoObject(object, i + 1, classes)),
  );
  annotations.forEach((annotation, i) => Object.assign(annotation, { id: i + 1 }));
  const categories = classes.map(({ name, category_id: id }) => ({ id, name }));
  return { images, annotations, categories };
}

/** A labelme file: a polygon for each part, the parts of an object as a group. */
export function toLabelme(picture, objects) {
  const shapes = objects.flatMap(({ name, score, polygons }, i) =>
    polygons.map((polygon) => ({
      label: name,
      points: oneRing(polygon),
      group_id: polygons.length > 1 ? i + 1 : null,
      description: `score ${score.toFixed(2)}`,
      shape_type: "polygon",
      flags: {},
      mask: null,
    })),
  );
  return {
    version: "5.5.0",
    flags: {},
    shapes,
    imagePath: picture.name,
    imageData: null,
    imageHeight: picture.height,
    imageWidth: picture.width,
  };
}

function cocoObject({ label, box, area, score, segmentation }, imageId, classes) {
  const [x1, y1, x2, y2] = box;
  return {
    image_id: imageId,
    category_id: classes[label].category_id,
    bbox: [x1, y1, rounded(x2 - x1), rounded(y2 - y1)],
    area,
    segmentation,
    iscrowd: 0,
    score,
  };
}

/** A difference of two numbers of two decimals, which is one as well. */
const rounded = (value) => Math.round(100 * value) / 100;

/** Join an outline and its holes to one line, by bridges that are walked there and back. */
function oneRing({ outline, holes }) {
  let ring = points(outline);
  for (const hole of holes.map(points)) {
    const [x, y] = hole[0];
    const distances = ring.map(([px, py]) => (px - x) ** 2 + (py - y) ** 2);
    const nearest = distances.indexOf(Math.min(...distances));
    ring = [...ring.slice(0, nearest + 1), ...hole, hole[0], ...ring.slice(nearest)];
  }
  return ring;
}

function points(flat) {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
}
