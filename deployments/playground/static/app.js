// the page: what is served, the draft, the videos, the one that is looked at; everything else is given its part of these
import { Problem, declineKey, forgetKey, giveKey, hasKey, pause, read, send, session, subscribe, waitForServer, wantKey } from "./api.js";
import { Composer, EXAMPLES, emptyDraft, useDraft } from "./compose.js";
import { Gallery } from "./gallery.js";
import { Graph } from "./graph.js";
import { Job, milestoneOf } from "./job.js";
import { bodyOf, fieldsOf, requestOf } from "./schema.js";
import { isLive, watch } from "./stream.js";
import { draftOf, isDerived, remember, remixed, useVideos } from "./videos.js";
import { Dialog, Icon, calm, html, render, useEffect, useLayoutEffect, useRef, useState } from "./view.js";

const BUSY_MS = 3000, IDLE_MS = 12_000; // between two looks at the graph and the list

// --- what happens by itself
function useSession() {
  const [, again] = useState(0);
  useLayoutEffect(() => subscribe(() => again(n => n + 1)), []);
  return session;
}

/** Does `look` again and again, sooner while there is something to see, and not behind another window. */
function useLooking(look, milliseconds) {
  const latest = useRef(look);
  latest.current = look;
  useEffect(() => {
    const stop = new AbortController();
    const wake = () => document.hidden || latest.current();
    document.addEventListener("visibilitychange", wake);
    (async () => {
      while (!stop.signal.aborted) {
        if (!document.hidden) await latest.current();
        await pause(milliseconds, stop.signal);
      }
    })();
    return () => { document.removeEventListener("visibilitychange", wake); stop.abort(); };
  }, [milliseconds]);
}

function useHash() {
  const [hash, setHash] = useState(location.hash.slice(1));
  useEffect(() => {
    const follow = () => setHash(location.hash.slice(1));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return hash;
}

/** Follows the video that is looked at to its end. */
function useWatching(id, live, { onVideo, onProblem }) {
  const [preview, setPreview] = useState(null);
  useEffect(() => setPreview(null), [id]);
  useEffect(() => (id && live ? watch(id, { onVideo, onPreview: setPreview, onProblem }) : undefined), [id, live]);
  return preview;
}

/** The plan of a video, asked for once; nothing where its settings are not known whole. */
function useJobPlan(video, families) {
  const [plans, setPlans] = useState({});
  useEffect(() => {
    if (!video || video.id in plans || isDerived(video)) return;
    const draft = draftOf(video, families), fields = fieldsOf(families.find(({ id }) => id === draft.model), draft.pipeline);
    const body = bodyOf(fields, draft.values, { model: `${draft.model}/${draft.pipeline}`, prompt: draft.prompt });
    const keep = plan => setPlans(old => ({ ...old, [video.id]: plan }));
    read("v1/plans", { method: "POST", quiet: true, ...requestOf(body) }).then(keep, () => keep(undefined));
  }, [video?.id]);
  return plans[video?.id];
}

// --- the parts of the page
function Page({ families }) {
  const state = useSession(), hash = useHash(), videos = useVideos();
  const [draft, setDraft] = useState(() => emptyDraft(families[0]));
  const [graph, setGraph] = useState(null), [notice, setNotice] = useState(null), [panel, setPanel] = useState(null), [doomed, setDoomed] = useState(null), [said, say] = useState("");
  const viewer = useRef(null), made = useDraft(families, draft);
  const chosen = videos.list.find(({ id }) => id === hash) ?? (hash ? undefined : videos.list[0]);
  const plan = useJobPlan(chosen, families);
  const warn = problem => problem.code === "locked" || problem.code === "unreachable" || setNotice(problem.message);
  const note = video => { videos.upsert(video); say(milestoneOf(video)); };
  const lost = problem => { warn(problem); if (problem.status === 404) videos.drop(chosen.id); };
  const preview = useWatching(chosen?.id, isLive(chosen), { onVideo: note, onProblem: lost });

  useLooking(async () => {
    const looks = [videos.refresh(isLive(chosen) ? chosen.id : undefined), read("v1/graph", { quiet: true }).then(setGraph)];
    (await Promise.allSettled(looks)).filter(({ reason }) => reason instanceof Problem).slice(0, 1).forEach(({ reason }) => warn(reason));
  }, videos.list.some(isLive) ? BUSY_MS : IDLE_MS);

  useEffect(() => { // an address that names a video which is not in the list's first page
    if (!hash || !videos.loaded || chosen) return;
    read(`v1/videos/${encodeURIComponent(hash)}`).then(videos.upsert, problem => { setNotice(problem.message); location.hash = ""; });
  }, [hash, videos.loaded]);

  const open = (video, { focus = true } = {}) => {
    setPanel(null);
    location.hash = video.id;
    if (focus) viewer.current.focus({ preventScroll: true });
    if (focus || innerWidth < 900) viewer.current.scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
  };
  const arrived = (video, from) => { if (from) remember(video.id, from); setNotice(null); note(video); open(video, { focus: false }); };
  const make = async (path, record, source) => {
    try {
      arrived(await send(path, record), path.endsWith("/remix") && remixed(source, record.prompt));
      return null;
    } catch (problem) {
      return problem;
    }
  };
  const acts = {
    rerun: video => { setDraft(draftOf(video, families)); say("The form has this video's settings."); document.getElementById("field-prompt").focus(); },
    remix: video => { open(video, { focus: false }); setPanel("remix"); },
    extend: video => { open(video, { focus: false }); setPanel("extend"); },
    cancel: video => send(`v1/videos/${video.id}/cancel`, {}).then(answer => { note(answer); viewer.current.focus(); }, warn),
    remove: setDoomed,
  };
  const act = (name, video) => acts[name](video);
  const remove = async () => {
    const { id } = doomed, place = videos.list.findIndex(video => video.id === id), next = videos.list[place + 1] ?? videos.list[place - 1];
    setDoomed(null);
    try {
      await read(`v1/videos/${id}`, { method: "DELETE" });
      videos.drop(id);
      if (hash === id) location.hash = "";
      say("The video is deleted.");
      setTimeout(() => (document.querySelector(`[data-id="${next?.id}"] .open`) ?? document.getElementById("gallery-title")).focus());
    } catch (problem) {
      warn(problem);
    }
  };
  const more = () => videos.more().then(first => setTimeout(() => document.querySelector(`[data-id="${first?.id}"] .open`)?.focus()), warn);
  const { steps, done, current, of } = pictured(chosen, plan, made.plan);

  return html`
    <a class="skip" href="#viewer-title" onClick=${event => { event.preventDefault(); viewer.current.focus(); }}>Skip to the video</a>
    <${Header} state=${state} jobs=${graph?.jobs} />
    <${Banner} state=${state} notice=${notice} dismiss=${() => setNotice(null)} />
    <main>
      <${Composer} families=${families} draft=${draft} setDraft=${setDraft} made=${made} onMade=${arrived} />
      <div class="results">
        <section class="viewer" aria-labelledby="viewer-title">
          <h2 id="viewer-title" class="away" tabindex="-1" ref=${viewer}>${chosen ? `Video: ${chosen.prompt}` : "Video"}</h2>
          ${chosen
            ? html`<${Job} key=${chosen.id} video=${chosen} preview=${preview} plan=${plan} panel=${panel} setPanel=${setPanel} act=${act} make=${make} />`
            : html`<${Welcome} family=${made.family} use=${prompt => { setDraft(old => ({ ...old, prompt })); document.getElementById("field-prompt").focus(); }} />`}
        </section>
        <section class="card-box" aria-labelledby="graph-title">
          <h2 id="graph-title">The graph <small>${of}</small></h2>
          <${Graph} family=${graph?.families?.[made.family.id]} steps=${steps} done=${done} current=${current} />
        </section>
      </div>
      <section class="gallery" aria-labelledby="gallery-title">
        <h2 id="gallery-title" tabindex="-1">Earlier videos</h2>
        <${Gallery} videos=${videos.list} chosen=${chosen?.id} hasMore=${videos.hasMore} onOpen=${open} onMore=${more} act=${act} />
      </section>
    </main>
    <p class="away" role="status">${said}</p>
    ${doomed && html`<${Farewell} video=${doomed} onClose=${() => setDoomed(null)} onDelete=${remove} />`}`;
}

/** What the graph's picture shows: a video under way as far as it is, else what the form would do. */
function pictured(video, plan, drafted) {
  if (!isLive(video)) return { steps: drafted?.steps ?? [], done: new Set(), current: null, of: drafted ? "with the plan of your settings" : "" };
  const seen = video.stages.map(({ step, stage }) => ({ name: step, stage, inputs: [] }));
  const now = video.current && !seen.some(({ name }) => name === video.current.step) ? [{ name: video.current.step, stage: video.current.stage, inputs: [] }] : [];
  return { steps: plan?.steps ?? [...seen, ...now], done: new Set(video.stages.map(({ step }) => step)), current: video.current, of: "with the plan of this video" };
}

function Header({ state, jobs }) {
  const word = !state.online ? "Offline" : state.starting ? "Starting" : "Ready";
  const load = jobs ? [jobs.in_progress && `${jobs.in_progress} running`, jobs.queued && `${jobs.queued} queued`].filter(Boolean).join(", ") : "";
  return html`
    <header>
      <h1>AIPROD <span>playground</span></h1>
      <p class="health ${word.toLowerCase()}"><span class="light" aria-hidden="true"></span>${word}${load && html`<small>${load}</small>`}</p>
      <button type="button" class="quiet key" onClick=${wantKey}><${Icon} name="key" /><span>${hasKey() ? "API key set" : "API key"}</span></button>
      ${state.asking && html`<${KeyDialog} refused=${state.refused} />`}
    </header>`;
}

function Banner({ state, notice, dismiss }) {
  const word = !state.online ? "The server does not answer. Trying again by itself; nothing is lost."
    : state.starting ? `The server is starting: ${state.starting}. This page goes on when it is ready.` : "";
  return html`
    <div class="banners">
      <div role="status">${word && html`<p class="banner">${word}</p>`}</div>
      ${state.locked && html`<p class="banner">The server wants an API key. <button type="button" class="quiet" onClick=${wantKey}>Enter a key</button></p>`}
      ${notice && html`<p class="banner alert" role="alert"><span>${notice}</span><button type="button" class="icon-only" aria-label="Dismiss" onClick=${dismiss}><${Icon} name="close" /></button></p>`}
    </div>`;
}

function Welcome({ family, use }) {
  return html`
    <div class="screen welcome">
      <p class="lead">Say what should happen.</p>
      <p>${family.title}</p>
      <ul>${EXAMPLES.map(example => html`<li key=${example}><button type="button" class="example" onClick=${() => use(example)}>${example}</button></li>`)}</ul>
    </div>`;
}

function KeyDialog({ refused }) {
  const [key, setKey] = useState(""), [fault, setFault] = useState(refused ? "The server does not know this key. Check it, or enter another." : "");
  const submit = event => {
    event.preventDefault();
    if (/^[\x21-\x7e]+$/.test(key.trim())) giveKey(key.trim());
    else setFault("A key has letters, digits and signs, and no spaces.");
  };
  return html`
    <${Dialog} label="API key" onClose=${declineKey}>
      <form onSubmit=${submit} noValidate>
        <p>The server asks who you are. The key stays in this tab and is forgotten when you close it.</p>
        <label for="api-key">Key</label>
        <input id="api-key" type="password" autocomplete="off" spellcheck=${false} placeholder="ap_…" value=${key} onInput=${e => setKey(e.target.value)}
          aria-invalid=${fault ? "true" : undefined} aria-describedby=${fault ? "api-key-fault" : undefined} />
        ${fault && html`<p class="fault" id="api-key-fault" role="alert">${fault}</p>`}
        <div class="actions">
          <button class="primary">Use this key</button>
          <button type="button" onClick=${declineKey}>Not now</button>
          ${hasKey() && html`<button type="button" class="quiet" onClick=${() => { forgetKey(); declineKey(); }}>Forget the key</button>`}
        </div>
      </form>
    <//>`;
}

function Farewell({ video, onClose, onDelete }) {
  return html`
    <${Dialog} label="Delete this video?" onClose=${onClose}>
      <p class="prompt">${video.prompt}</p>
      <p>${isLive(video) ? "It is stopped first. " : ""}It cannot be brought back.</p>
      <div class="actions"><button type="button" class="danger" onClick=${onDelete}>Delete</button><button type="button" onClick=${onClose}>Keep</button></div>
    <//>`;
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
  return html`
    <${Header} state=${state} />
    <${Banner} state=${state} />
    <main class="boot">${problem ? html`<p role="alert">${problem.message}</p><button type="button" onClick=${load}>Try again</button>` : html`<p>Loading the playground…</p>`}</main>`;
}

document.getElementById("app").replaceChildren();
render(html`<${App} />`, document.getElementById("app"));
