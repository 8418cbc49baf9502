// stages with their queues, a plan, how far it is -> one picture: a lane for each stage, a column for each step, time to the right
import { count, html, useEffect, useRef, useState, words } from "./view.js";

const ORDER = ["prompt_enhancer", "text_encoder", "vae_encoder", "audio_encoder", "optical_flow", "denoiser", "upsampler", "refiner",
  "audio_decoder", "vae_decoder"];
const LANE = 46, BOX = 34, PAD = 8, ROUND = 6;
export const placeOf = name => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);

/** `steps` of a plan ({name, stage, inputs}), `done` their names, `current` what runs now. */
export function Graph({ family, steps, done, current }) {
  const [frame, width] = useWidth();
  const stages = lanesOf(family, steps);
  return html`
    <div class="graph" ref=${frame}>
      ${width > 0 && html`<${Picture} stages=${stages} steps=${steps} done=${done} current=${current} width=${width} />`}
      <ul class="away">${stages.map(stage => html`<li key=${stage.name}>${spoken(stage, steps, done, current)}</li>`)}</ul>
    </div>`;
}

function useWidth() {
  const ref = useRef(null), [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return [ref, width];
}

/** The family's stages in the order of the work, and any that a plan has besides. */
function lanesOf(family, steps) {
  const known = family?.stages ?? [];
  const missing = [...new Set(steps.map(({ stage }) => stage))].filter(name => !known.some(stage => stage.name === name));
  return [...known, ...missing.map(name => ({ name }))].sort((one, other) => placeOf(one.name) - placeOf(other.name));
}

const stateOf = (step, done, current) => (current?.step === step.name ? "running" : done.has(step.name) ? "done" : "to-come");
const replicasOf = ({ replicas }) => (replicas === undefined ? "" : replicas === 0 ? "asleep" : count(replicas, "replica"));

function spoken(stage, steps, done, current) {
  const { queued = 0, running = 0 } = stage;
  const own = steps.filter(step => step.stage === stage.name);
  const said = own.map(step => `${step.name} (${stateOf(step, done, current).replace("-", " ")})`).join(", ");
  const facts = [replicasOf(stage), `${running} running`, `${queued} waiting`, said ? `steps: ${said}` : "no step of this plan"];
  return `${words(stage.name)}: ${facts.filter(Boolean).join(", ")}.`;
}

function Picture({ stages, steps, done, current, width }) {
  const head = width < 480 ? 112 : 168, column = (width - head - PAD) / Math.max(steps.length, 1);
  const pill = Math.min(column - 14, 116), dots = pill < 54;
  const half = dots ? 6 : pill / 2;
  const lane = Object.fromEntries(stages.map((stage, place) => [stage.name, place * LANE + LANE / 2]));
  const middle = place => head + PAD + column * (place + 0.5);
  const spots = Object.fromEntries(steps.map(({ name, stage }, place) => [name, { x: middle(place), y: lane[stage] }]));
  const states = Object.fromEntries(steps.map(step => [step.name, stateOf(step, done, current)]));
  const edges = steps.flatMap(({ name, inputs }) => inputs.filter(from => from in spots).map(from => [from, name]));
  return html`
    <svg width=${width} height=${stages.length * LANE} viewBox="0 0 ${width} ${stages.length * LANE}" aria-hidden="true" focusable="false">
      ${stages.map(stage => html`<line class="lane" x1=${head} x2=${width} y1=${lane[stage.name]} y2=${lane[stage.name]} />`)}
      ${edges.map(([from, to]) => html`<path class="edge ${states[to]}" d=${route(spots[from], spots[to], half)} />`)}
      ${stages.map(stage => html`<${Stage} stage=${stage} y=${lane[stage.name]} width=${head} here=${current?.stage === stage.name} />`)}
      ${steps.map(({ name }) => html`
        <${Step} name=${name} at=${spots[name]} half=${half} dots=${dots} current=${current} state=${states[name]} />`)}
    </svg>`;
}

/** Right along the lane that it comes from, then up or down the column of the step that it feeds. */
function route(from, to, half) {
  if (from.y === to.y) return `M${from.x + half} ${from.y}H${to.x - half}`;
  const down = Math.sign(to.y - from.y), end = to.y - down * (half === 6 ? 6 : 13);
  return `M${from.x + half} ${from.y}H${to.x - ROUND}q${ROUND} 0 ${ROUND} ${down * ROUND}V${end}`;
}

function Stage({ stage, y, width, here }) {
  const top = y - BOX / 2, narrow = width < 150;
  const busy = here || stage.running > 0;
  return html`
    <g class="stage ${busy ? "busy" : ""}">
      <rect x="0.5" y=${top + 0.5} width=${width - 1} height=${BOX - 1} rx="8" />
      <circle class="light" cx="13" cy=${y} r="3" />
      <text class="name" x="24" y=${narrow || !replicasOf(stage) ? y + 4 : y - 2.5}>${words(stage.name)}</text>
      ${!narrow && html`<text class="replicas" x="24" y=${y + 11}>${replicasOf(stage)}</text>`}
      ${stage.queued > 0 && html`<${Queue} n=${stage.queued} x=${width - 8} y=${y} narrow=${narrow} />`}
    </g>`;
}

/** What waits, as a number and, while few, as tokens. */
function Queue({ n, x, y, narrow }) {
  const tokens = narrow ? 0 : Math.min(n, 4);
  return html`
    <g class="queue">
      ${Array.from({ length: tokens }, (_, place) => html`<rect x=${x - 20 - place * 6} y=${y - 4} width="4" height="8" rx="1" />`)}
      <text x=${x} y=${y + 4} text-anchor="end">${n}</text>
    </g>`;
}

function Step({ name, at, half, dots, current, state }) {
  const share = state === "running" && current.total ? current.done / current.total : 0;
  if (dots) return html`<circle class="step ${state}" cx=${at.x} cy=${at.y} r="6" />`;
  const left = at.x - half, room = Math.floor((2 * half - 16) / 6.4);
  const shown = name.length > room ? `${name.slice(0, room - 1)}…` : name;
  return html`
    <g class="step ${state}">
      <rect x=${left} y=${at.y - 13} width=${2 * half} height="26" rx="13" />
      ${share > 0 && html`<rect class="share" x=${left} y=${at.y - 13} width=${Math.max(26, 2 * half * share)} height="26" rx="13" />`}
      <text x=${at.x} y=${at.y + 4} text-anchor="middle">${shown}</text>
    </g>`;
}
