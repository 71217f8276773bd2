"use strict";
// Images with the outlines of objects and detections over them.

const VIEW = 1024; // units along the longer side of an image, as in yolact/report/records.py

/** Make an element; its text, like all text here, is never read as HTML. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  return fill(element, attributes, children);
}

function makeSvg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Return width and height of an image in view units. */
function viewOf(image) {
  const longer = Math.max(...image.size);
  return image.size.map((side) => (side * VIEW) / longer);
}

/** Make the frame of an image: its pixels, and an empty drawing over them. */
function makeCanvas(image, size) {
  const [width, height] = viewOf(image);
  const canvas = make("div", { class: "canvas", style: `--ratio: ${width / height}` });
  if (image.picture) {
    const src = `viewer/${size}/${image.picture}`;
    canvas.append(make("img", { src, alt: "", loading: "lazy", decoding: "async" }));
  }
  canvas.append(makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }));
  return canvas;
}

/** Return x, y, width and height of an item in view units. */
function boxOf(image, item) {
  const { boxes } = outlinesOf(image, item);
  return boxes.slice(4 * item.number, 4 * item.number + 4);
}

function outlinesOf(image, item) {
  return image.outlines[item.side === "detections" ? 0 : 1];
}

/** Draw items, the smaller over the larger, and errors over what is right. */
function drawItems(svg, image, items) {
  const area = (item) => boxOf(image, item)[2] * boxOf(image, item)[3];
  const order = (a, b) => (b.kind === "right") - (a.kind === "right") || area(b) - area(a);
  svg.replaceChildren(...[...items].sort(order).map((item) => drawItem(image, item)));
}

function drawItem(image, item) {
  const [x, y, width, height] = boxOf(image, item);
  const shape = makeSvg("g", { class: `shape ${item.kind} ${item.side}`, "data-key": keyOf(item) });
  const path = outlinesOf(image, item).paths?.[item.number];
  if (path) shape.append(makeSvg("path", { d: path }));
  shape.append(makeSvg("rect", { x, y, width, height }));
  return shape;
}

function keyOf(item) {
  return `${item.side}-${item.number}`;
}

/** Write a number of ten-thousandths, rounded down: what reads 0.50 passes a threshold of 0.50. */
function decimals(units) {
  return (Math.floor((units + 1) / 100) / 100).toFixed(2);
}
