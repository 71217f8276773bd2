/** Dark and light: as the system says, until somebody chooses. */

import { keep, kept } from "../lib/storage.js";
import { byId, setPressed } from "./dom.js";

const KEY = "yolact-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function startTheme() {
  apply(kept(KEY));
  byId("theme").onclick = () => {
    const chosen = isDark() ? "light" : "dark";
    keep(KEY, chosen);
    apply(chosen);
  };
  system.addEventListener("change", () => apply(kept(KEY)));
}

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : system.matches;
}

function apply(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  setPressed(byId("theme"), isDark());
}
