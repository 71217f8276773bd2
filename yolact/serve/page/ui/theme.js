/** Dark and light: as the system says, until somebody chooses. */

import { byId, setPressed } from "./dom.js";

const KEY = "yolact-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function startTheme() {
  apply(localStorage.getItem(KEY));
  byId("theme").onclick = () => {
    const chosen = isDark() ? "light" : "dark";
    localStorage.setItem(KEY, chosen);
    apply(chosen);
  };
  system.addEventListener("change", () => apply(localStorage.getItem(KEY)));
}

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : system.matches;
}

function apply(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  setPressed(byId("theme"), isDark());
}
