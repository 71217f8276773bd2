/** Requests to the server. */

import { takeBack } from "../ui/dom.js";

const PATIENCE = 8; // tries while the server is busy
const SILENCE = "the server does not answer; is it still running?";

export async function getModel() {
  const response = await fetch("api/model").catch(silent);
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

/** Find the objects of an image file, unless a signal comes first; numbers them in order. */
export async function segment(blob, query, signal) {
  const answer = await post(`api/segment?${new URLSearchParams(query)}`, blob, signal);
  answer.objects.forEach((object, index) => Object.assign(object, { index }));
  return answer;
}

export const getPrototypes = (blob, signal) => post("api/prototypes", blob, signal);

async function post(path, blob, signal) {
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  for (let tries = 1; ; tries += 1) {
    const request = { method: "POST", body: blob, headers, signal };
    const response = await fetch(path, request).catch(silent);
    if (response.ok) {
      takeBack(({ reason }) => reason === SILENCE);
      return response.json();
    }
    const isBusy = response.status === 429 || response.status === 503;
    if (!isBusy || tries === PATIENCE) throw new Error(await reason(response));
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  }
}

async function reason(response) {
  const answer = await response.json().catch(() => ({}));
  return answer.error ?? `the server answered ${response.status}`;
}

function silent() {
  throw new Error(SILENCE);
}
