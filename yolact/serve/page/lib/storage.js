/** What the browser keeps between visits, where it is allowed to. */

export function kept(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function keep(key, text) {
  try {
    localStorage.setItem(key, text);
  } catch {
    // It is forgotten at the end of the visit.
  }
}
