// one video as it is now -> its screen, how far it is, what can be done with it, where its time and cost went
import { media } from "./api.js";
import { Icon, calm, count, duration, html, useEffect, useRef, useResult, useState, words } from "./view.js";
import { isLive } from "./stream.js";

/** Where a video stands, in a few words. */
export function stateOf({ status, queue_position: position, current, progress, seconds, num_frames: frames }) {
  if (status === "queued") return position > 1 ? `Queued, ${position - 1} ahead` : position === 1 ? "Queued, next in line" : "Queued";
  if (status === "completed") return frames === 1 ? "Still" : duration(Number(seconds));
  if (status !== "in_progress") return words(status);
  if (!current) return `In progress, ${progress} %`;
  return current.total > 1 ? `${words(current.stage)}, step ${Math.min(current.done + 1, current.total)} of ${current.total}` : words(current.stage);
}

/** What a screen reader is told: each stage, and each quarter of a long one. */
export function milestoneOf(video) {
  if (video.status === "completed") return "The video is finished.";
  if (video.status === "failed") return `The video failed: ${video.error?.message ?? "no reason was given"}`;
  const { done = 0, total = 0 } = video.current ?? {};
  if (video.status !== "in_progress" || total < 8) return stateOf(video).replace(/, step.*/, "");
  const quarter = Math.floor((4 * done) / total);
  return quarter ? `${words(video.current.stage)}, step ${Math.round((quarter * total) / 4)} of ${total}` : words(video.current.stage);
}

/** `panel` is the form that is open below the video: remix, extend or none. */
export function Job({ video, preview, plan, panel, setPanel, act, make }) {
  const content = useResult(signal => (video.status === "completed" ? media(video.id, "video", signal) : undefined), [video.id, video.status]);
  useEffect(() => () => content.value && URL.revokeObjectURL(content.value.url), [content.value]);
  const done = video.status === "completed";
  return html`
    <article class="job ${video.status}">
      <${Screen} video=${video} preview=${preview} content=${content} />
      <div class="panel">
        <p class="prompt">${video.prompt}</p>
        <${Progress} video=${video} />
        <${Actions} video=${video} content=${content.value} panel=${panel} setPanel=${setPanel} act=${act} />
        ${done && panel && html`<${Next} key=${panel + video.id} kind=${panel} video=${video} make=${make} />`}
        <${Facts} video=${video} />
      </div>
      ${!isLive(video) && video.stages?.length > 0 && html`<${Timings} video=${video} plan=${plan} />`}
    </article>`;
}

function Screen({ video, preview, content }) {
  const [width, height] = (video.size ?? "1x1").split("x").map(Number);
  return html`<div class="screen" style=${{ "--ratio": `${width} / ${height}`, "--wide": width / height }}><${Shown} video=${video} preview=${preview} content=${content} /></div>`;
}

function Shown({ video, preview, content }) {
  const poster = useResult(signal => (video.status === "completed" ? media(video.id, "thumbnail", signal).catch(() => undefined) : undefined), [video.id, video.status]);
  useEffect(() => () => poster.value && URL.revokeObjectURL(poster.value.url), [poster.value]);
  if (content.error) return html`<p class="word" role="alert">The video could not be fetched. ${content.error.message}</p>`;
  if (content.value?.type.startsWith("image/")) return html`<img src=${content.value.url} alt=${video.prompt} />`;
  if (content.value) {
    return html`<video controls loop muted playsinline autoplay=${!calm()} src=${content.value.url} poster=${poster.value?.url} aria-label=${video.prompt}></video>`;
  }
  if (preview && isLive(video)) return html`<img class="preview" src=${preview} alt="Preview of the video so far" />`;
  const said = { queued: stateOf(video), completed: "Fetching the video…", cancelled: "Cancelled", failed: "No video" };
  return html`<p class="word">${said[video.status] ?? "No picture yet"}</p>`;
}

function Progress({ video }) {
  if (video.status === "failed") {
    return html`<p class="alert" role="alert"><strong>It failed.</strong> ${video.error?.message ?? "No reason was given."} <code>${video.error?.code}</code></p>`;
  }
  if (!isLive(video)) return null;
  return html`
    <div class="progress">
      <div class="line"><span class="state">${stateOf(video)}</span><span class="percent">${video.progress} %</span></div>
      <progress max="100" value=${video.progress} aria-label="Progress of the video"></progress>
    </div>`;
}

function Actions({ video, content, panel, setPanel, act }) {
  return html`
    <div class="actions">
      ${isLive(video) && html`<button type="button" onClick=${() => act("cancel", video)}><${Icon} name="close" />Cancel</button>`}
      ${content && html`<a class="button primary" href=${content.url} download=${fileName(video, content.type)}><${Icon} name="down" />Download</a>`}
      ${video.status === "completed" && ["remix", "extend"].map(name => html`
        <button key=${name} type="button" aria-expanded=${String(panel === name)} onClick=${() => setPanel(panel === name ? null : name)}>
          <${Icon} name=${name} />${words(name)}
        </button>`)}
      <button type="button" aria-label="Reuse settings" onClick=${() => act("rerun", video)}><${Icon} name="again" />Reuse</button>
      ${!isLive(video) && html`<button type="button" onClick=${() => act("remove", video)}><${Icon} name="trash" />Delete</button>`}
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
    const wrong = await make(...(kind === "remix" ? [`v1/videos/${video.id}/remix`, { prompt }] : ["v1/videos/extensions", { prompt, seconds, video: { id: video.id } }]), video);
    setBusy(false);
    setProblem(wrong);
  };
  const fault = name => (problem && (problem.param === name || (name === "prompt" && problem.param !== "seconds")) ? problem.message : undefined);
  const explained = name => ({ "aria-invalid": fault(name) ? "true" : undefined, "aria-describedby": fault(name) ? `next-${name}-fault` : undefined });
  const told = name => fault(name) && html`<p class="fault" id="next-${name}-fault" role="alert">${fault(name)}</p>`;
  return html`
    <form class="next" aria-label=${words(kind)} onSubmit=${submit} noValidate>
      ${kind === "extend" && html`
        <div class="label"><label for="next-seconds">Go on for how many seconds?</label>
          <input id="next-seconds" ref=${first} type="text" inputmode="decimal" value=${seconds} ...${explained("seconds")} onInput=${e => setSeconds(e.target.value)} /></div>
        ${told("seconds")}`}
      <label for="next-prompt">${kind === "remix" ? "New prompt, same seed and settings" : "What the rest shows"}</label>
      <textarea id="next-prompt" ref=${kind === "remix" ? first : undefined} rows="2" value=${prompt} ...${explained("prompt")} onInput=${e => setPrompt(e.target.value)}></textarea>
      ${told("prompt")}
      <button class="primary" disabled=${busy}>${kind === "remix" ? "Create remix" : "Create extension"}</button>
    </form>`;
}

function Facts({ video }) {
  const facts = [["Seed", video.seed], ["Size", video.size?.replace("x", " × ")], ["Length", video.num_frames && `${count(video.num_frames, "frame")} at ${video.fps} per second`],
    ["Model", video.model], ["Pipeline", video.pipeline && words(video.pipeline)], ["Made", video.created_at && new Date(video.created_at * 1000).toLocaleString()],
    ["From", video.remixed_from_video_id && html`<a href="#${video.remixed_from_video_id}">an earlier video</a>`]];
  return html`<dl class="facts">${facts.filter(([, value]) => value != null && value !== "").map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** A table that is also a chart: for each step how long it waited and ran, and its share of the cost where the plan is known. */
function Timings({ video, plan }) {
  const costs = costsOf(video, plan), longest = Math.max(...video.stages.map(({ queued_seconds, run_seconds }) => queued_seconds + run_seconds), 1e-9);
  const total = video.stages.reduce((sum, { queued_seconds, run_seconds }) => sum + queued_seconds + run_seconds, 0);
  const share = seconds => ({ width: `${(100 * seconds) / longest}%` });
  return html`
    <table class="timings">
      <caption><span>Time${costs && " and cost"} of each step</span> <small>${duration(total)} in all${video.cost ? `, cost ${cost(video.cost)}` : ""}</small></caption>
      <thead><tr><th scope="col">Step</th><th scope="col" class="bar-head"><span class="away">As bars</span></th><th scope="col">Waited</th><th scope="col">Ran</th>
        ${costs && html`<th scope="col">Cost</th>`}</tr></thead>
      <tbody>
        ${video.stages.map(receipt => html`
          <tr key=${`${receipt.step}-${receipt.attempt}`}>
            <th scope="row">${receipt.step}<small>${words(receipt.stage)}${receipt.cache_hit ? ", from the cache" : ""}${receipt.attempt > 1 ? `, attempt ${receipt.attempt}` : ""}</small></th>
            <td class="bars" aria-hidden="true"><span class="bar waited" style=${share(receipt.queued_seconds)}></span><span class="bar ran" style=${share(receipt.run_seconds)}></span></td>
            <td>${duration(receipt.queued_seconds)}</td><td>${duration(receipt.run_seconds)}</td>
            ${costs && html`<td>${cost(costs[receipt.step])}</td>`}
          </tr>`)}
      </tbody>
    </table>`;
}

const cost = value => (value >= 0.01 || value === 0 ? value.toFixed(2) : "< 0.01");

/** Steps' shares of the cost by the work that the plan foresees; nothing where the plan is not this video's. */
function costsOf({ stages, cost: whole }, plan) {
  if (!plan || !whole || !stages.every(({ step }) => plan.steps.some(({ name }) => name === step))) return undefined;
  const works = plan.steps.map(({ name, work }) => [name, work.network_calls * work.tokens]);
  const sum = works.reduce((all, [, work]) => all + work, 0);
  return sum ? Object.fromEntries(works.map(([name, work]) => [name, (whole * work) / sum])) : undefined;
}

function fileName({ prompt, id }, type) {
  const slug = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-|-$/g, "");
  return `${slug || "video"}-${id.slice(-6)}.${type.split("/")[1]?.split(";")[0] || "mp4"}`;
}
