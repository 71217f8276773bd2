"use strict";
// All images as small pictures. Outlines are drawn only over those that are in sight.

class Gallery {
  /** @param list: the element; @param images: those that have outlines. */
  constructor(list, images) {
    this.list = list;
    this.cards = new Map(images.map((image) => [image, this.makeCard(image)]));
    this.inSight = new Set();
    this.observer = new IntersectionObserver((entries) => this.see(entries), { rootMargin: "300px" });
    for (const [image, card] of this.cards) {
      card.image = image;
      this.observer.observe(card);
    }
    list.append(...this.cards.values());
  }

  makeCard(image) {
    const canvas = makeCanvas(image, "small");
    const name = make("span", { class: "name" }, image.file);
    const link = make("a", { href: `#image/${image.id}` }, canvas, name, make("span", { class: "tally" }));
    return make("li", { style: canvas.getAttribute("style") }, link);
  }

  see(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) {
        this.inSight.add(target);
        this.draw(target);
      } else {
        this.inSight.delete(target);
      }
    }
  }

  /** Show these images, in this order if it is asked for. */
  show(images, reorder) {
    const shown = new Set(images);
    for (const [image, card] of this.cards) card.hidden = !shown.has(image);
    if (reorder) this.list.append(...images.map((image) => this.cards.get(image)));
    for (const card of this.inSight) this.draw(card);
  }

  /** Draw all that are shown, as for paper, where everything is in sight. */
  drawAll() {
    for (const card of this.cards.values()) {
      for (const picture of card.querySelectorAll("img")) {
        Object.assign(picture, { loading: "eager", decoding: "sync" });
      }
      this.draw(card);
    }
  }

  draw(card) {
    const { image } = card;
    if (card.hidden) return;
    const seen = (item) => item.side === "detections" || item.kind === "missed";
    drawItems(card.querySelector("svg"), image, image.shown.filter(seen));
    const { right, missed, false: background } = image.counts;
    const tally = Object.entries({ right, missed, background });
    card.querySelector(".tally").replaceChildren(...tally.map(([kind, number]) => makeTally(kind, number)));
  }

  /** Move the focus to the next image in sight order, or the previous one. */
  step(by) {
    const links = [...this.list.querySelectorAll("li:not([hidden]) > a")];
    const place = links.indexOf(document.activeElement);
    links[Math.min(Math.max(place + by, 0), links.length - 1)]?.focus();
  }

  focus(image) {
    const link = this.cards.get(image)?.querySelector("a");
    link?.scrollIntoView({ block: "center" });
    link?.focus({ preventScroll: true });
  }
}

function makeTally(kind, number) {
  const word = kind === "background" ? "false" : kind;
  const swatch = make("span", { class: `swatch ${kind}` });
  const spoken = make("span", { class: "unseen" }, ` ${word} `);
  return make("span", { class: number ? "" : "none", title: word }, swatch, `${number}`, spoken);
}
