/** Requests to the server. */

const PATIENCE = 8; // tries while the server is busy

export async function getModel() {
  const response = await fetch("api/model").catch(silent);
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

/** Find the objects of an image file; numbers them in order. */
export async function segment(blob, query) {
  const answer = await post(`api/segment?${new URLSearchParams(query)}`, blob);
  answer.objects.forEach((object, index) => Object.assign(object, { index }));
  return answer;
}

export const getPrototypes = (blob) => post("api/prototypes", blob);

async function post(path, blob) {
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  for (let tries = 1; ; tries += 1) {
    const response = await fetch(path, { method: "POST", body: blob, headers }).catch(silent);
    if (response.ok) return response.json();
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
  throw new Error("the server does not answer; is it still running?");
}
