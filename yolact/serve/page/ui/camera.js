/** The camera of this browser, segmented live: each frame is shown with its own objects. */

import { addFiles, segmentFrame, show } from "../lib/pictures.js";
import { change, state } from "../lib/state.js";
import { announce, byId, complain, element, setPressed } from "./dom.js";

const LONGEST = 960; // side of a frame, in pixels
const SMOOTHING = 0.85; // of the speed shown

let live = null; // { stream, video, picture, fps }
let isStarting = false;

export function startCameraButtons() {
  for (const id of ["camera", "watch"]) byId(id).onclick = toggleCamera;
  byId("shutter").onclick = takePicture;
}

export async function toggleCamera() {
  if (isStarting) return; // a double click, or permission is being asked for
  if (live) {
    stop();
    return;
  }
  isStarting = true;
  try {
    await start();
  } catch (error) {
    stop();
    complain(error.message, "camera");
  }
  isStarting = false;
}

/** Keep the frame on stage as a picture. */
export function takePicture() {
  live?.picture.bitmap?.toBlob((blob) => {
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
    const file = new File([blob], `camera-${time}.png`, { type: "image/png" });
    stop();
    addFiles([file]);
  }, "image/png");
}

async function start() {
  if (!navigator.mediaDevices) throw new Error("browsers allow it on localhost or https only");
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 1280 } });
  const video = element("video", { srcObject: stream, muted: true, playsInline: true });
  const picture = { id: 0, name: "Camera", isLive: true, bitmap: null, answer: null };
  live = { stream, video, picture, fps: 0 };
  stream.getVideoTracks()[0].onended = () => {
    if (live?.stream === stream) stop();
    complain("it was disconnected", "camera");
  };
  await video.play();
  show(picture);
  showButtons();
  announce("camera on");
  watch(live);
}

function stop() {
  if (!live) return;
  live.stream.getTracks().forEach((track) => track.stop());
  if (state.current === live.picture) show(state.pictures.at(-1) ?? null);
  live = null;
  showButtons();
  announce("camera off");
}

async function watch(session) {
  let last = performance.now();
  while (live === session && state.current === session.picture) {
    try {
      await segmentNext(session);
    } catch (error) {
      complain(error.message);
      break;
    }
    const now = performance.now();
    const fps = 1000 / (now - last);
    session.fps = session.fps ? SMOOTHING * session.fps + (1 - SMOOTHING) * fps : fps;
    last = now;
    byId("fps").textContent = `${session.fps.toFixed(1)} fps`;
  }
  if (live === session) stop(); // another picture was chosen
}

async function segmentNext({ video, picture }) {
  await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
  const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
  const size = { width: video.videoWidth * scale, height: video.videoHeight * scale };
  const canvas = element("canvas", size);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
  const answer = await segmentFrame(blob);
  const { width, height } = canvas;
  Object.assign(picture, { bitmap: canvas, answer, width, height });
  change({ selected: null, hovered: null });
}

function showButtons() {
  setPressed(byId("camera"), Boolean(live));
  byId("fps").hidden = byId("shutter").hidden = !live;
}
