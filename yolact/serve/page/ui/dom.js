/** Small helpers for elements, and the two voices of the page. */

export const byId = (id) => document.getElementById(id);

/** Make an element with properties (not attributes) and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Make an element of SVG with attributes. */
export function svgElement(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

export const setPressed = (button, isPressed) =>
  button.setAttribute("aria-pressed", String(isPressed));

/** Tell those who listen to the page. */
export function announce(text) {
  byId("announcement").textContent = text;
}

/** Show what went wrong, in a line of its own, until it is taken back or dismissed. */
export function complain(text, about = "") {
  const line = about ? `${about}: ${text}` : text;
  takeBack((shown) => shown.line === line);
  byId("problem-text").append(element("p", { textContent: line, line, reason: text }));
  byId("problem").hidden = false;
  byId("problem-close").onclick = () => takeBack();
}

/** Remove lines: those that fit, by their `line` and `reason`, or all. */
export function takeBack(fits = () => true) {
  const lines = byId("problem-text");
  for (const shown of [...lines.children]) if (fits(shown)) shown.remove();
  byId("problem").hidden = !lines.firstChild;
}
