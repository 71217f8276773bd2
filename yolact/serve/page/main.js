/** Starts the page. */

import { getModel } from "./lib/api.js";
import { LOWEST_SCORE, change, state } from "./lib/state.js";
import { startCameraButtons } from "./ui/camera.js";
import { startControls } from "./ui/controls.js";
import { byId, complain, counted } from "./ui/dom.js";
import { startExplain } from "./ui/explain.js";
import { startIntake } from "./ui/intake.js";
import { startKeys } from "./ui/keys.js";
import { startObjects } from "./ui/objects.js";
import { startSaves } from "./ui/save.js";
import { startStage } from "./ui/stage.js";
import { startStrip } from "./ui/strip.js";
import { startTheme } from "./ui/theme.js";

startTheme();
try {
  state.model = await getModel();
  const { name, classes, score_threshold: threshold } = state.model;
  byId("threshold").valueAsNumber = state.threshold = Math.max(threshold, LOWEST_SCORE);
  byId("model").textContent = `${name} · ${counted(classes.length, "class", "classes")}`;
  const parts = [
    startStage, startControls, startObjects, startExplain, startStrip,
    startIntake, startCameraButtons, startSaves, startKeys,
  ];
  parts.forEach((start) => start());
  change();
} catch (error) {
  complain(error.message);
}
document.documentElement.dataset.ready = "";
