// a call -> the server's answer, or a Problem; knows the API key, and whether the server is there at all

/** What the server said: a message, the field at fault (`param`), a stable `code`, the HTTP `status` (0: no answer). */
export class Problem extends Error {
  constructor(message, { status = 0, param = null, code = "unreachable" } = {}) {
    super(message);
    Object.assign(this, { status, param, code });
  }
}

const KEY = "aiprod.key";
const listeners = new Set();
/** `online`: the server answers. `starting`: what it still waits for. `asking`: a key is wanted; `locked`: and was not given. */
export const session = { online: true, starting: "", asking: null, refused: false, locked: false };

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function change(fields) {
  Object.assign(session, fields);
  for (const listener of [...listeners]) listener(fields);
}

/** The answer. `quiet` calls, made by no one's hand, do not ask for a key again once that was declined. */
export async function call(path, { quiet = false, ...options } = {}) {
  const key = sessionStorage.getItem(KEY);
  if (quiet && session.locked) throw new Problem("An API key is needed.", { status: 401, code: "locked" });
  const response = await reach(path, options, key);
  if (response.status === 401) {
    if (key === sessionStorage.getItem(KEY)) await askForKey({ refused: key !== null });
    return call(path, { quiet, ...options });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

export const read = async (path, options) => (await call(path, options)).json();
export const send = (path, record) =>
  read(path, { method: "POST", body: JSON.stringify(record), headers: { "content-type": "application/json" } });

/** A video's file, under an address that an element can show; the key cannot travel with `src`. */
export async function media(id, variant, signal) {
  const blob = await (await call(`v1/videos/${id}/content?variant=${variant}`, { quiet: true, signal })).blob();
  return { url: URL.createObjectURL(blob), type: blob.type };
}

async function reach(path, options, key) {
  const headers = { ...options.headers, ...(key === null ? {} : { authorization: `Bearer ${key}` }) };
  try {
    return await fetch(new URL(path, document.baseURI), { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    waitForServer();
    throw new Problem("The server does not answer. Nothing is lost: try again when it is back.");
  }
}

async function problemOf(response) {
  const about = { status: response.status, code: "http_error" };
  if (response.status >= 502) waitForServer();
  try {
    const { message, param, code } = (await response.json()).error;
    return new Problem(message, { ...about, param, code });
  } catch {
    return new Problem(`The server answered ${response.status} ${response.statusText} and gave no reason.`, about);
  }
}

// --- the key
async function askForKey({ refused, needed = true }) {
  if (!session.asking) {
    const asking = {};
    asking.answer = new Promise((given, declined) => Object.assign(asking, { given, declined }));
    change({ asking, refused });
  }
  session.asking.needed ||= needed;
  await session.asking.answer;
}

export function giveKey(key) {
  sessionStorage.setItem(KEY, key);
  endAsking(asking => asking.given(), { locked: false });
}

export function declineKey() {
  const denied = new Problem("The server wants an API key. Enter one to go on.", { status: 401, code: "locked" });
  endAsking(asking => asking.declined(denied), { locked: session.asking.needed });
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
  change({ locked: false });
}

export const wantKey = () => askForKey({ refused: false, needed: session.locked }).catch(() => {});

function endAsking(how, fields) {
  const asking = session.asking;
  change({ asking: null, refused: false, ...fields });
  if (asking) how(asking);
}

// --- whether the server is there
let waiting = false;

/** Asks until the server is ready, and tells all listeners. */
export async function waitForServer() {
  if (waiting) return;
  waiting = true;
  for (let tries = 0; !(await lookForServer()); tries++) await pause(Math.min(1000 * 1.5 ** tries, 8000));
  waiting = false;
}

async function lookForServer() {
  try {
    const response = await fetch(new URL("readyz", document.baseURI), { signal: AbortSignal.timeout(10_000) });
    const { applications = {} } = await response.json().catch(() => ({}));
    const behind = Object.entries(applications).filter(([, state]) => state !== "RUNNING");
    const said = behind.map(([name, state]) => `${name} is ${state.toLowerCase()}`).join(", ");
    const starting = response.ok ? "" : said || "its parts are not there yet";
    if (!session.online || session.starting !== starting) change({ online: true, starting });
    return response.ok;
  } catch {
    if (session.online) change({ online: false, starting: "" });
    return false;
  }
}

/** Waits so long, or until the server is back or a key was given. */
export function pause(milliseconds, signal) {
  return new Promise(resolve => {
    const end = () => { clearTimeout(timer); leave(); signal?.removeEventListener("abort", end); resolve(); };
    const timer = setTimeout(end, milliseconds);
    const leave = subscribe(fields => (fields.online || fields.locked === false) && end());
    signal?.addEventListener("abort", end);
  });
}
