// server-sent events over fetch (EventSource cannot send a key) -> a video as it changes, until its end, through lost connections
import { call, pause } from "./api.js";

const FINAL = new Set(["completed", "failed", "cancelled"]);
/** Whether nothing is seen of it. */
export const isSound = video => video.size === null;
export const isLive = video => Boolean(video) && !FINAL.has(video.status);
const SILENCE = 45_000; // ms; the server says something every 15 s

/** Hears of every change of a video until its status is final. Answers what stops that. */
export function watch(id, listener) {
  const stop = new AbortController();
  follow(id, listener, stop.signal);
  return () => stop.abort();
}

async function follow(id, { onVideo, onPreview, onProblem }, signal) {
  for (let failures = 0; !signal.aborted; failures++) {
    try {
      for await (const { event, data } of listen(`v1/videos/${id}/events`, signal)) {
        failures = 0;
        if (signal.aborted) return;
        if (event === "preview") onPreview(JSON.parse(data).image);
        if (event !== "video") continue;
        const video = JSON.parse(data);
        onVideo(video);
        if (FINAL.has(video.status)) return;
      }
    } catch (problem) {
      if (signal.aborted) return;
      const lasting = problem.status >= 400 && problem.status < 500 && ![408, 429].includes(problem.status);
      if (lasting && problem.code !== "locked") return onProblem(problem);
    }
    await pause(Math.min(500 * 2 ** failures, 8000), signal);
  }
}

/** The events of one connection. A silent one is given up. */
async function* listen(path, signal) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE);
  try {
    const options = { quiet: true, headers: { accept: "text/event-stream" }, signal: AbortSignal.any([signal, silence.signal]) };
    const { body } = await call(path, options);
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE);
      yield* parser.take(value);
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

/** text/event-stream in pieces of any size -> events */
export class EventParser {
  #rest = "";
  #event = "message";
  #data = [];

  *take(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/); // a last \r may be half of a line's end
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") yield* this.#finish();
      else this.#read(line);
    }
  }

  #read(line) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "event") this.#event = value;
    if (name === "data") this.#data.push(value);
  }

  *#finish() {
    if (this.#data.length) yield { event: this.#event, data: this.#data.join("\n") };
    this.#event = "message";
    this.#data = [];
  }
}
