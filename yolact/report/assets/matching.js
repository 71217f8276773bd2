"use strict";
// What becomes of every object and every detection of an image at two thresholds, decided as by
// pycocotools and yolact/evaluation/confusion.py. Scores and overlaps are whole ten-thousandths.

/** The kinds of verdicts that count; crowds, and what is detected in them, do not. */
const KINDS = {
  right: "Right",
  missed: "Missed",
  confused: "Wrong class",
  duplicate: "Duplicate",
  mask: "Poor mask",
  box: "Poor box",
  background: "Nothing there",
};

/** Unpack the pairs of an image: the closest first, all of them and by detection. */
function unpack(image) {
  const { pairs } = image;
  image.near = image.found.map(() => []);
  image.pairs = [];
  for (let i = 0; i < pairs.length; i += 4) {
    const [detection, object, overlap, box] = pairs.slice(i, i + 4);
    const pair = { detection, object, overlap, box };
    image.pairs.push(pair);
    image.near[detection].push(pair);
  }
}

/** Return the kind of each object and each detection, and the pair that explains it, if any. */
function judge(image, score, overlap) {
  const verdict = {
    objects: image.objects.map(() => ({ kind: "missed" })),
    detections: Array.from({ length: detectionsFrom(image, score) }, () => ({ kind: "background" })),
  };
  for (const object of image.crowds) verdict.objects[object].kind = "crowd";
  matchWithinClasses(image, verdict, overlap);
  matchAcrossClasses(image, verdict, overlap);
  explainTheRest(image, verdict, overlap);
  return verdict;
}

/** Return how many detections score so high; the best come first. */
function detectionsFrom(image, score) {
  const below = image.scores.findIndex((value) => value < score);
  return below < 0 ? image.scores.length : below;
}

function isOfOneClass(image, pair) {
  return image.found[pair.detection] === image.objects[pair.object];
}

/** Let each detection, the best first, find the closest object of its class that is left. */
function matchWithinClasses(image, { objects, detections }, overlap) {
  detections.forEach((detection, number) => {
    const close = image.near[number].filter(
      (pair) => pair.overlap >= overlap && isOfOneClass(image, pair),
    );
    const pair = close.find((pair) => objects[pair.object].kind === "missed");
    if (pair) {
      Object.assign(detection, { kind: "right", pair });
      Object.assign(objects[pair.object], { kind: "right", pair });
    } else if (close.some((pair) => objects[pair.object].kind === "crowd")) {
      detection.kind = "ignored";
    }
  });
}

/** Join what is left over of two classes, the closest first. */
function matchAcrossClasses(image, { objects, detections }, overlap) {
  for (const pair of image.pairs) {
    if (pair.overlap < overlap) break;
    const detection = detections[pair.detection];
    const object = objects[pair.object];
    if (detection?.kind === "background" && object.kind === "missed") {
      Object.assign(detection, { kind: "confused", pair });
      Object.assign(object, { kind: "confused", pair });
    }
  }
}

/** Tell why the other detections are wrong, and what came closest to a missed object. */
function explainTheRest(image, { objects, detections }, overlap) {
  detections.forEach((detection, number) => {
    if (detection.kind !== "background") return;
    const near = image.near[number].filter((pair) => objects[pair.object].kind !== "crowd");
    const [closest] = near;
    const pair = near.find((pair) => isOfOneClass(image, pair));
    if (closest?.overlap >= overlap) {
      Object.assign(detection, { kind: "duplicate", pair: closest });
    } else if (pair) {
      Object.assign(detection, { kind: pair.box >= overlap ? "mask" : "box", pair });
      const object = objects[pair.object];
      if (object.kind === "missed") object.pair ??= pair;
    }
  });
}

/** List what counts in an image: objects and detections, judged anew if that can change anything. */
function itemsOf(image, score, overlap) {
  const key = `${detectionsFrom(image, score)} ${overlap}`;
  if (image.judgedAt !== key) {
    image.judgedAt = key;
    image.items = listItems(image, judge(image, score, overlap));
  }
  return image.items;
}

function listItems(image, verdict) {
  const items = [];
  verdict.objects.forEach(({ kind, pair }, number) => {
    if (kind === "crowd") return;
    const other = pair && image.found[pair.detection];
    items.push({ side: "objects", number, kind, pair, label: image.objects[number], other });
  });
  verdict.detections.forEach(({ kind, pair }, number) => {
    if (kind === "ignored") return;
    const other = pair && image.objects[pair.object];
    const score = image.scores[number];
    items.push({ side: "detections", number, kind, pair, label: image.found[number], other, score });
  });
  return items;
}

/** Count the items of a class (-1: of all): right, missed, false, and each kind of detections. */
function count(items, label = -1) {
  const counts = { right: 0, missed: 0, false: 0, kinds: {} };
  for (const kind of Object.keys(KINDS)) counts.kinds[kind] = 0;
  for (const item of items) {
    if (label >= 0 && item.label !== label) continue;
    const isDetection = item.side === "detections";
    if (isDetection || item.kind === "missed") counts.kinds[item.kind] += 1;
    if (item.kind === "right") counts.right += isDetection;
    else counts[isDetection ? "false" : "missed"] += 1;
  }
  return counts;
}
