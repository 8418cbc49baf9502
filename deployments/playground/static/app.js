// the page: what is served, the draft, the videos, the one that is looked at; everything else is given its part of these
import { Problem, pause, read, send, waitForServer } from "./api.js";
import { ANALYTICS, Analytics } from "./analytics.js";
import { Composer, emptyDraft, useDraft } from "./compose.js";
import { Banners, Farewell, Header, Welcome } from "./frame.js";
import { Gallery } from "./gallery.js";
import { Graph } from "./graph.js";
import { Job, milestoneOf } from "./job.js";
import { useHash, useJobPlan, useLooking, useSession, useWatching } from "./living.js";
import { isLive } from "./stream.js";
import { draftOf, remember, remixed, useVideos } from "./videos.js";
import { Button, calm, html, render, useEffect, useRef, useState } from "./view.js";

const BUSY_MS = 3000, IDLE_MS = 12_000; // between two looks at the graph and the list
const NARROW = 900; // px; below, the form stands above the video
const SILENT = new Set(["locked", "unreachable", "rate_limited"]); // said elsewhere, or over soon

const focusPrompt = () => document.getElementById("field-prompt").focus();
const focusCard = id => (document.querySelector(`[data-id="${id}"] .open`) ?? document.getElementById("gallery-title")).focus();

function Page({ families }) {
  const state = useSession(), videos = useVideos(), { hash, counting } = usePlace();
  const [draft, setDraft] = useState(() => emptyDraft(families[0])), made = useDraft(families, draft);
  const [graph, setGraph] = useState(null), [notice, setNotice] = useState(null), [said, say] = useState("");
  const viewer = useRef(null);
  const chosen = videos.list.find(({ id }) => id === hash) ?? (hash ? undefined : videos.list[0]);
  const plan = useJobPlan(chosen, families);
  const warn = problem => SILENT.has(problem.code) || setNotice(problem.message);
  const note = video => { videos.upsert(video); say(milestoneOf(video)); };
  const lost = problem => { warn(problem); if (problem.status === 404) videos.drop(chosen.id); };
  const preview = useWatching(chosen?.id, isLive(chosen), { onVideo: note, onProblem: lost });
  const acts = useActs({ videos, families, hash, viewer, setDraft, setNotice, say, warn, note });

  useLooking(async () => {
    const looks = [videos.refresh(isLive(chosen) ? chosen.id : undefined), read("v1/graph", { quiet: true }).then(setGraph)];
    const failed = (await Promise.allSettled(looks)).find(({ reason }) => reason instanceof Problem);
    if (failed) warn(failed.reason);
  }, videos.list.some(isLive) ? BUSY_MS : IDLE_MS);

  useEffect(() => { // the address names a video that is not in the list's first page
    if (!hash || !videos.loaded || chosen) return;
    read(`v1/videos/${encodeURIComponent(hash)}`).then(videos.upsert, problem => { warn(problem); location.hash = ""; });
  }, [hash, videos.loaded]);

  const use = prompt => { setDraft(old => ({ ...old, prompt })); focusPrompt(); };
  const shown = { video: chosen, preview, plan, panel: acts.panel, setPanel: acts.setPanel, act: acts.act, make: acts.make };
  return html`
    ${!counting && html`
      <a class="skip" href="#viewer-title" onClick=${e => { e.preventDefault(); viewer.current.focus(); }}>Skip to the video</a>`}
    <${Header} state=${state} jobs=${graph?.jobs} video=${hash} counting=${counting} />
    <${Banners} state=${state} notice=${notice} dismiss=${() => setNotice(null)} />
    ${counting && html`<${Analytics} />`}
    <main hidden=${counting}>
      <${Composer} families=${families} draft=${draft} setDraft=${setDraft} made=${made} onMade=${acts.arrived} />
      <div class="results">
        <section class="viewer" aria-labelledby="viewer-title">
          <h2 id="viewer-title" class="away" tabindex="-1" ref=${viewer}>${chosen ? `Video: ${chosen.prompt}` : "Video"}</h2>
          ${chosen ? html`<${Job} key=${chosen.id} ...${shown} />` : html`<${Welcome} family=${made.family} use=${use} />`}
        </section>
        <${GraphCard} family=${graph?.families?.[made.family.id]} ...${pictured(chosen, plan, made.plan)} />
      </div>
      <section class="gallery" aria-labelledby="gallery-title">
        <h2 id="gallery-title" tabindex="-1">Earlier videos</h2>
        <${Gallery} videos=${videos.list} chosen=${chosen?.id} hasMore=${videos.hasMore} onMore=${acts.more} onOpen=${acts.open}
          act=${acts.act} />
      </section>
    </main>
    <p class="away" role="status">${said}</p>
    ${acts.doomed && html`<${Farewell} video=${acts.doomed} onClose=${acts.spare} onDelete=${acts.remove} />`}`;
}

/** What the address names: the figures, before which the video that was looked at is only put aside, or a video. */
function usePlace() {
  const named = useHash(), video = useRef(""), counting = named === ANALYTICS;
  if (!counting) video.current = named;
  useEffect(() => { if (counting) for (const media of document.querySelectorAll("video, audio")) media.pause(); }, [counting]);
  return { hash: video.current, counting };
}

/** What can be done with videos, and what that opens: a panel below the video, a question before it is deleted. */
function useActs({ videos, families, hash, viewer, setDraft, setNotice, say, warn, note }) {
  const [panel, setPanel] = useState(null), [doomed, setDoomed] = useState(null);
  const open = (video, { focus = true } = {}) => {
    setPanel(null);
    location.hash = video.id;
    if (focus) viewer.current.focus({ preventScroll: true });
    if (focus || innerWidth < NARROW) viewer.current.scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
  };
  const openPanel = name => video => { open(video, { focus: false }); setPanel(name); };
  const arrived = (video, from) => {
    if (from) remember(video.id, from);
    setNotice(null);
    note(video);
    open(video, { focus: false });
  };
  const make = async (path, record, source) => {
    try {
      arrived(await send(path, record), path.endsWith("/remix") && remixed(source, record.prompt));
      return null;
    } catch (problem) {
      return problem;
    }
  };
  const rerun = video => { setDraft(draftOf(video, families)); say("The form has this video's settings."); focusPrompt(); };
  const cancel = async video => { note(await send(`v1/videos/${video.id}/cancel`, {})); viewer.current.focus(); };
  const remove = async ({ id }) => {
    const place = videos.list.findIndex(video => video.id === id), next = videos.list[place + 1] ?? videos.list[place - 1];
    await read(`v1/videos/${id}`, { method: "DELETE" });
    videos.drop(id);
    if (hash === id) location.hash = "";
    say("The video is deleted.");
    setTimeout(focusCard, 0, next?.id);
  };
  const more = async () => { const first = await videos.more(); setTimeout(focusCard, 0, first?.id); };
  const warned = action => async (...given) => { try { await action(...given); } catch (problem) { warn(problem); } };
  const acts = { rerun, cancel: warned(cancel), remix: openPanel("remix"), extend: openPanel("extend"), remove: setDoomed };
  return {
    panel, setPanel, doomed, open, arrived, make,
    act: (name, video) => acts[name](video),
    spare: () => setDoomed(null),
    remove: () => { setDoomed(null); warned(remove)(doomed); },
    more: warned(more),
  };
}

function GraphCard({ of, ...shown }) {
  return html`
    <section class="card-box" aria-labelledby="graph-title">
      <h2 id="graph-title">The graph <small>${of}</small></h2>
      <${Graph} ...${shown} />
    </section>`;
}

/** What the graph's picture shows: a video under way as far as it is, else what the form would do. */
function pictured(video, plan, drafted) {
  if (!isLive(video)) {
    return { steps: drafted?.steps ?? [], done: new Set(), current: null, of: drafted && "with the plan of your settings" };
  }
  const { stages, current } = video, done = new Set(stages.map(({ step }) => step));
  const seen = current && !done.has(current.step) ? [...stages, current] : stages;
  const steps = plan?.steps ?? seen.map(({ step, stage }) => ({ name: step, stage, inputs: [] }));
  return { steps, done, current, of: "with the plan of this video" };
}

/** Until it is known what is served there is nothing to fill in. */
function App() {
  const state = useSession(), [families, setFamilies] = useState(null), [problem, setProblem] = useState(null);
  const load = async () => {
    setProblem(null);
    try {
      setFamilies((await read("v1/models")).data);
    } catch (met) {
      setProblem(met);
      await pause(IDLE_MS);
      if (met.code !== "locked") load();
    }
  };
  useEffect(() => { load(); waitForServer(); }, []);
  if (families?.length) return html`<${Page} families=${families} />`;
  const refused = () => html`<p role="alert">${problem.message}</p><${Button} onClick=${load}>Try again<//>`;
  return html`
    <${Header} state=${state} />
    <${Banners} state=${state} />
    <main class="boot">${problem ? refused() : html`<p>Loading the playground…</p>`}</main>`;
}

document.getElementById("app").replaceChildren();
render(html`<${App} />`, document.getElementById("app"));
