// one video as it is now -> its screen, how far it is, what can be done with it, where its time and cost went
import { media } from "./api.js";
import { Button, Icon, calm, count, duration, explained, html, useEffect, useRef, useResult, useState, words } from "./view.js";
import { isLive, isSound } from "./stream.js";

/** Where a video stands, in a few words. */
export function stateOf({ status, queue_position: position, current, progress, seconds, num_frames: frames }) {
  if (status === "queued") return position > 1 ? `Queued, ${position - 1} ahead` : position === 1 ? "Queued, next in line" : "Queued";
  if (status === "completed") return frames === 1 ? "Still" : duration(Number(seconds));
  if (status !== "in_progress") return words(status);
  if (!current) return `In progress, ${progress} %`;
  const { stage, done, total } = current;
  return total > 1 ? `${words(stage)}, step ${Math.min(done + 1, total)} of ${total}` : words(stage);
}

/** What a screen reader is told: each stage, and each quarter of a long one. */
export function milestoneOf(video) {
  if (video.status === "completed") return "The video is finished.";
  if (video.status === "failed") return `The video failed: ${video.error?.message ?? "no reason was given"}`;
  const { stage, done = 0, total = 0 } = video.current ?? {};
  if (video.status !== "in_progress" || total < 8) return stateOf(video).replace(/, step.*/, "");
  const quarter = Math.floor((4 * done) / total);
  return quarter ? `${words(stage)}, step ${Math.round((quarter * total) / 4)} of ${total}` : words(stage);
}

/** A finished video's file, for as long as it is looked at. */
export function useMedia(video, variant) {
  const there = video.status === "completed" && (variant === "video" || !isSound(video));
  const fetched = signal => (there ? media(video.id, variant, signal) : undefined);
  const result = useResult(fetched, [video.id, video.status, variant]);
  useEffect(() => () => result.value && URL.revokeObjectURL(result.value.url), [result.value]);
  return result;
}

/** Whether something can be made from a video in this way: a sound alone is not carried on. */
export const isOffered = (name, video) => video.status === "completed" && !(name === "extend" && isSound(video));

/** `panel` is the form that is open below the video: remix, extend or none. */
export function Job({ video, preview, plan, panel, setPanel, act, make }) {
  const content = useMedia(video, "video");
  return html`
    <article class="job ${video.status}">
      <${Screen} video=${video} preview=${preview} content=${content} />
      <div class="panel">
        <p class="prompt">${video.prompt}</p>
        <${Progress} video=${video} />
        <${Actions} video=${video} content=${content.value} panel=${panel} setPanel=${setPanel} act=${act} />
        ${panel && isOffered(panel, video) && html`<${Next} key=${panel} kind=${panel} video=${video} make=${make} />`}
        <${Facts} video=${video} />
      </div>
      ${!isLive(video) && video.stages?.length > 0 && html`<${Timings} video=${video} plan=${plan} />`}
    </article>`;
}

function Screen({ video, preview, content }) {
  const [width, height] = (video.size ?? "1x1").split("x").map(Number);
  return html`
    <div class="screen ${isSound(video) ? "sound" : ""}" style=${{ "--ratio": `${width} / ${height}`, "--wide": width / height }}>
      <${Shown} video=${video} preview=${preview} content=${content} />
    </div>`;
}

function Shown({ video, preview, content: { value, error } }) {
  const poster = useMedia(video, "thumbnail").value?.url;
  if (error) return html`<p class="word" role="alert">The video could not be fetched. ${error.message}</p>`;
  if (value?.type.startsWith("audio/")) return html`<audio controls src=${value.url} aria-label=${video.prompt}></audio>`;
  if (value?.type.startsWith("image/")) return html`<img src=${value.url} alt=${video.prompt} />`;
  if (value) {
    return html`
      <video controls loop muted playsinline autoplay=${!calm()} src=${value.url} poster=${poster} aria-label=${video.prompt}></video>`;
  }
  if (preview && isLive(video)) return html`<img class="preview" src=${preview} alt="Preview of the video so far" />`;
  const kind = isSound(video) ? "sound" : "video";
  const said = { queued: stateOf(video), completed: `Fetching the ${kind}…`, cancelled: "Cancelled", failed: `No ${kind}` };
  return html`<p class="word">${said[video.status] ?? (isSound(video) ? "No sound yet" : "No picture yet")}</p>`;
}

function Progress({ video }) {
  if (video.status === "failed") {
    const { message = "No reason was given.", code } = video.error ?? {};
    return html`<p class="alert" role="alert"><strong>It failed.</strong> ${message} <code>${code}</code></p>`;
  }
  if (!isLive(video)) return null;
  return html`
    <div class="progress">
      <div class="line"><span class="state">${stateOf(video)}</span><span class="percent">${video.progress} %</span></div>
      <progress max="100" value=${video.progress} aria-label="Progress of the video"></progress>
    </div>`;
}

function Actions({ video, content, panel, setPanel, act }) {
  const download = () => html`
    <a class="button primary" href=${content.url} download=${fileName(video, content.type)}><${Icon} name="down" />Download</a>`;
  const next = name => html`
    <${Button} key=${name} icon=${name} aria-expanded=${String(panel === name)} onClick=${() => setPanel(panel === name ? null : name)}>
      ${words(name)}
    <//>`;
  return html`
    <div class="actions">
      ${isLive(video) && html`<${Button} icon="close" onClick=${() => act("cancel", video)}>Cancel<//>`}
      ${content && download()}
      ${["remix", "extend"].filter(name => isOffered(name, video)).map(next)}
      <${Button} icon="again" aria-label="Reuse settings" onClick=${() => act("rerun", video)}>Reuse<//>
      ${!isLive(video) && html`<${Button} icon="trash" onClick=${() => act("remove", video)}>Delete<//>`}
    </div>`;
}

/** The form of what is made from this video. */
function Next({ kind, video, make }) {
  const first = useRef(null);
  const [prompt, setPrompt] = useState(video.prompt), [seconds, setSeconds] = useState("1");
  const [busy, setBusy] = useState(false), [problem, setProblem] = useState(null);
  useEffect(() => first.current.focus(), []);
  const submit = async event => {
    event.preventDefault();
    setBusy(true);
    const wrong = await (kind === "remix"
      ? make(`v1/videos/${video.id}/remix`, { prompt }, video)
      : make("v1/videos/extensions", { prompt, seconds, video: { id: video.id } }, video));
    setBusy(false);
    setProblem(wrong);
  };
  const blamed = problem?.param === "seconds" ? "seconds" : "prompt";
  const fault = name => (blamed === name ? problem?.message : undefined);
  const told = name => fault(name) && html`<p class="fault" id="next-${name}-fault" role="alert">${fault(name)}</p>`;
  const shared = name => ({ id: `next-${name}`, ...explained(fault(name), `next-${name}-fault`) });
  return html`
    <form class="next" aria-label=${words(kind)} onSubmit=${submit} noValidate>
      ${kind === "extend" && html`
        <div class="label"><label for="next-seconds">Go on for how many seconds?</label>
          <input ...${shared("seconds")} ref=${first} type="text" inputmode="decimal" value=${seconds}
            onInput=${e => setSeconds(e.target.value)} /></div>
        ${told("seconds")}`}
      <label for="next-prompt">${kind === "remix" ? "New prompt, same seed and settings" : "What the rest shows"}</label>
      <textarea ...${shared("prompt")} ref=${kind === "remix" ? first : undefined} rows="2" value=${prompt}
        onInput=${e => setPrompt(e.target.value)}></textarea>
      ${told("prompt")}
      <button class="primary" disabled=${busy}>${kind === "remix" ? "Create remix" : "Create extension"}</button>
    </form>`;
}

const day = seconds => seconds && new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

function Facts({ video }) {
  const facts = {
    Seed: video.seed,
    Size: video.size?.replace("x", " × "),
    Length: isSound(video) ? duration(Number(video.seconds)) : video.num_frames && `${count(video.num_frames, "frame")} at ${video.fps} per second`,
    Model: video.model,
    Pipeline: video.pipeline && words(video.pipeline),
    Made: day(video.created_at),
    "Kept until": day(video.expires_at),
    From: video.remixed_from_video_id && html`<a href="#${video.remixed_from_video_id}">an earlier video</a>`,
  };
  const known = Object.entries(facts).filter(([, value]) => value != null && value !== "");
  return html`<dl class="facts">${known.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** A table that is also a chart: for each step how long it waited and ran, and its share of the cost where the plan is known. */
function Timings({ video, plan }) {
  const costs = costsOf(video, plan), times = video.stages.map(({ queued_seconds, run_seconds }) => queued_seconds + run_seconds);
  const total = duration(times.reduce((sum, time) => sum + time, 0)), longest = Math.max(...times, 1e-9);
  return html`
    <table class="timings">
      <caption>
        <span>Time${costs && " and cost"} of each step</span>
        <small>${total} in all${video.cost ? `, cost ${priced(video.cost)}` : ""}</small>
      </caption>
      <thead><tr>
        <th scope="col">Step</th><th scope="col" class="bar-head"><span class="away">As bars</span></th>
        <th scope="col">Waited</th><th scope="col">Ran</th>${costs && html`<th scope="col">Cost</th>`}
      </tr></thead>
      <tbody>${video.stages.map((receipt, place) => html`
        <${Receipt} key=${place} receipt=${receipt} longest=${longest} cost=${costs?.[receipt.step]} />`)}</tbody>
    </table>`;
}

function Receipt({ receipt: { step, stage, replica, queued_seconds: waited, run_seconds: ran, cache_hit: kept, attempt }, longest, cost }) {
  const width = seconds => ({ width: `${(100 * seconds) / longest}%` });
  const about = [words(stage), kept && "from the cache", attempt > 1 && `attempt ${attempt}`].filter(Boolean).join(", ");
  return html`
    <tr>
      <th scope="row" title=${replica && `on replica ${replica}`}>${step}<small>${about}</small></th>
      <td class="bars" aria-hidden="true">
        <span class="bar waited" style=${width(waited)}></span><span class="bar ran" style=${width(ran)}></span>
      </td>
      <td>${duration(waited)}</td><td>${duration(ran)}</td>${cost !== undefined && html`<td>${priced(cost)}</td>`}
    </tr>`;
}

const priced = value => (value >= 0.01 || value === 0 ? value.toFixed(2) : "< 0.01");

/** Steps' shares of the cost as the plan foresees them; nothing where the plan is not this video's. */
function costsOf({ stages, cost }, plan) {
  if (!plan || !cost || !stages.every(({ step }) => plan.steps.some(({ name }) => name === step))) return undefined;
  const sum = plan.steps.reduce((all, step) => all + step.cost, 0); // not a number where the server does not say
  return sum > 0 ? Object.fromEntries(plan.steps.map(step => [step.name, (cost * step.cost) / sum])) : undefined;
}

function fileName({ prompt, id }, type) {
  const slug = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-|-$/g, "");
  return `${slug || "video"}-${id.slice(-6)}.${type === "audio/mp4" ? "m4a" : type.split("/")[1]?.split(";")[0] || "mp4"}`;
}
