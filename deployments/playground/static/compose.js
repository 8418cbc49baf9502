// a draft (model, pipeline, prompt, values) <-> the form that makes videos of it, its faults, and the plan of what it would do
import { call, read } from "./api.js";
import { Button, count, explained, html, useEffect, useMemo, useRef, useState, words } from "./view.js";
import { Settings, focusField, placeOf } from "./form.js";
import { Snippets } from "./snippets.js";
import { bodyOf, check, fieldsOf, requestOf } from "./schema.js";

export const EXAMPLES = ["a big red ball bounces on a navy background", "a small green star spins slowly", "a pink ring orbits on white",
  "a blue square moves left"];
const PLANNING_DELAY = 400; // ms after the last key
const PLANNING_BYTES = 4_000_000; // larger files are not sent twice

export function emptyDraft(family) {
  return { model: family.id, pipeline: family.default_pipeline, prompt: "", values: {} };
}

/** A draft -> all that the page shows of it. */
export function useDraft(families, draft) {
  const family = families.find(({ id }) => id === draft.model) ?? families[0];
  const pipeline = draft.pipeline in family.pipelines ? draft.pipeline : family.default_pipeline;
  const fields = useMemo(() => fieldsOf(family, pipeline), [family, pipeline]);
  const body = useMemo(() => bodyOf(fields, draft.values, { model: `${family.id}/${pipeline}`, prompt: draft.prompt }), [fields, draft]);
  const wrong = useMemo(() => ({ ...promptFault(draft.prompt, family.limits), ...check(fields, draft.values) }), [fields, draft]);
  return { family, pipeline, fields, body, wrong, ...usePlan(body, wrong) };
}

function promptFault(prompt, limits) {
  const size = new TextEncoder().encode(prompt).length;
  if (!prompt.trim()) return { prompt: { missing: true, message: "Say what the video shows." } };
  return size > limits.max_prompt_bytes ? { prompt: { message: `At most ${limits.max_prompt_bytes} bytes, got ${size}.` } } : {};
}

/** What the server would do, and what it has against it: asked a moment after the last change, if nothing is known to be wrong. */
function usePlan(body, wrong) {
  const [answer, setAnswer] = useState({});
  const fine = Object.keys(wrong).every(path => path === "prompt");
  useEffect(() => {
    const stop = new AbortController();
    const large = Object.values(body.files).reduce((sum, { size }) => sum + size, 0) > PLANNING_BYTES;
    if (!fine || large) return setAnswer({});
    const record = { ...body.record, prompt: body.record.prompt.trim() || EXAMPLES[0] };
    const ask = () => read("v1/plans", { method: "POST", quiet: true, signal: stop.signal, ...requestOf({ ...body, record }) }).then(
      plan => setAnswer({ plan }),
      problem => stop.signal.aborted || setAnswer({ planProblem: problem.status === 400 ? problem : undefined }),
    );
    const timer = setTimeout(ask, PLANNING_DELAY);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [body]);
  return answer;
}

/** `onMade` hears of a new video and the draft that it was made of. */
export function Composer({ families, draft, setDraft, made, onMade }) {
  const { family, pipeline, fields, body, wrong, plan, planProblem } = made;
  const [tried, setTried] = useState(false), [busy, setBusy] = useState(false), [refusal, setRefusal] = useState({});
  const attempt = useRef({});
  useEffect(() => setRefusal({}), [body]);
  const faults = shownFaults({ wrong, tried, planProblem, refusal });
  const set = (name, value) => setDraft(old => ({ ...old, values: { ...old.values, [name]: value } }));
  const submit = async event => {
    event.preventDefault();
    if (busy) return;
    setTried(true);
    const [first] = Object.keys(wrong);
    if (first) return focusField(placeOf(first));
    setBusy(true);
    try {
      const video = await create(body, attempt.current);
      setTried(false);
      onMade(video, draft);
    } catch (problem) {
      const path = placeOf(problem.param);
      setRefusal(path ? { faults: { [path]: problem } } : { message: problem.message });
      if (path) setTimeout(focusField, 0, path);
    } finally {
      setBusy(false);
    }
  };
  const changed = Object.values(draft.values).some(value => value !== undefined);
  const reset = () => setDraft(old => ({ ...old, values: {} }));
  const onKey = event => event.key === "Enter" && (event.ctrlKey || event.metaKey) && submit(event);
  return html`
    <form class="composer" aria-labelledby="compose-title" onSubmit=${submit} onKeyDown=${onKey} noValidate>
      <h2 id="compose-title" class="away">New video</h2>
      <${Prompt} draft=${draft} setDraft=${setDraft} fault=${faults.prompt} />
      <${Models} families=${families} family=${family} pipeline=${pipeline} setDraft=${setDraft} />
      <${Settings} fields=${fields} values=${draft.values} faults=${faults} set=${set} />
      <${Snippets} body=${body} />
      <div class="send">
        ${refusal.message && html`<p class="alert" role="alert">${refusal.message}</p>`}
        <button class="primary" aria-describedby="foreseen" aria-busy=${String(busy)}>${busy ? "Creating…" : "Create video"}</button>
        <div class="below">
          <p id="foreseen" class="help">${foreseen(plan)}</p>
          ${changed && html`<${Button} class="quiet" icon="again" onClick=${reset}>Reset the settings<//>`}
        </div>
      </div>
    </form>`;
}

/** What is missing is said once it was tried without; the server's word stands where ours says nothing. */
function shownFaults({ wrong, tried, planProblem, refusal }) {
  const own = Object.fromEntries(Object.entries(wrong).filter(([, { missing }]) => tried || !missing));
  const path = planProblem && placeOf(planProblem.param);
  return { ...(path ? { [path]: planProblem } : {}), ...refusal.faults, ...own };
}

const foreseen = plan => (plan ? `${count(plan.steps.length, "step")}, ${plan.totals.network_calls} network calls` : "");

/** Posts a body. A second try after no answer has the first one's key, so that nothing is made twice. */
async function create(body, attempt) {
  const { headers, ...request } = requestOf(body), said = JSON.stringify(body.record);
  if (attempt.said !== said || attempt.files !== body.files) Object.assign(attempt, { said, files: body.files, key: randomKey() });
  const response = await call("v1/videos", { method: "POST", ...request, headers: { ...headers, "idempotency-key": attempt.key } });
  attempt.said = undefined;
  return response.json();
}

const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, "0")).join("");

function Prompt({ draft, setDraft, fault }) {
  const set = prompt => setDraft(old => ({ ...old, prompt }));
  return html`
    <div class="field prompt-field ${fault ? "wrong" : ""}">
      <label for="field-prompt">What should happen?</label>
      <textarea id="field-prompt" data-path="prompt" rows="3" value=${draft.prompt} placeholder=${EXAMPLES[0]} aria-required="true"
        ...${explained(fault, "field-prompt-fault")} onInput=${e => set(e.target.value)}></textarea>
      ${fault && html`<p class="fault" id="field-prompt-fault">${fault.message}</p>`}
    </div>`;
}

function Models({ families, family, pipeline, setDraft }) {
  const chooseModel = event => setDraft(old => ({ ...old, model: event.target.value }));
  const choosePipeline = event => setDraft(old => ({ ...old, pipeline: event.target.value }));
  return html`
    <div class="field models" data-path="model">
      ${families.length > 1 && html`
        <div class="label"><label for="field-model">Model</label>
          <select id="field-model" value=${family.id} onChange=${chooseModel}>
            ${families.map(({ id }) => html`<option key=${id} value=${id}>${id}</option>`)}
          </select></div>`}
      <div class="label"><label for="field-pipeline">Pipeline</label>
        <select id="field-pipeline" data-path="pipeline" value=${pipeline} aria-describedby="pipeline-help" onChange=${choosePipeline}>
          ${Object.keys(family.pipelines).map(name => html`<option key=${name} value=${name}>${words(name)}</option>`)}
        </select></div>
      <p class="help" id="pipeline-help">${family.pipelines[pipeline].description}</p>
    </div>`;
}
