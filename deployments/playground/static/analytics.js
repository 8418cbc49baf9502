// days -> what the server counted of them: jobs a day, times of stages, who used what, why jobs failed; each a table, most with bars
import { read } from "./api.js";
import { placeOf } from "./graph.js";
import { Button, count, duration, html, useEffect, useRef, useResult, useState, words } from "./view.js";

export const ANALYTICS = "analytics"; // in the address
const SPANS = [7, 30, 90, 400];
const ENDS = ["completed", "failed", "cancelled"];
const HEIGHT = 100; // of the picture of days, in its own units

const dayOf = text => new Date(`${text}T00:00Z`).toLocaleDateString(undefined, { dateStyle: "medium", timeZone: "UTC" });
const long = seconds => (seconds >= 7200 ? `${(seconds / 3600).toFixed(1)} h` : duration(seconds));
const sum = (rows, name) => rows.reduce((all, row) => all + row[name], 0);

export function Analytics() {
  const [days, setDays] = useState(30), [asked, ask] = useState(0), title = useRef(null);
  const { value: found, error } = useResult(() => read(`v1/analytics?days=${days}`), [days, asked]);
  useEffect(() => title.current.focus(), []);
  return html`
    <main class="analytics">
      <div class="over">
        <h2 tabindex="-1" ref=${title}>Analytics <small>${found && aboutOf(found)}</small></h2>
        <div class="label"><label for="analytics-days">Look back</label>
          <select id="analytics-days" value=${days} onChange=${e => setDays(Number(e.target.value))}>
            ${SPANS.map(span => html`<option key=${span} value=${span}>${count(span, "day")}</option>`)}
          </select></div>
        <${Button} icon="again" class="quiet" onClick=${() => ask(asked + 1)}>Count anew<//>
      </div>
      ${error && html`<p class="alert" role="alert">${error.message}</p>`}
      <p class="away" role="status">${found ? "Counted." : error ? "" : "Counting…"}</p>
      ${found && html`<${Figures} found=${found} />`}
    </main>`;
}

const aboutOf = ({ since, until, tenant }) =>
  `${dayOf(since)} to ${dayOf(until)}, days of UTC, ${tenant === null ? "all tenants" : `tenant ${tenant}`}`;

function Figures({ found: { days, families, usage, failures, gpu_hour_price: price } }) {
  if (!ENDS.some(end => sum(days, end))) {
    return html`<p class="hint">No job ended in these days. One is counted when it ends, and stays so when its video is deleted.</p>`;
  }
  return html`
    <${Card} id="days" title="Jobs a day"><${Days} days=${days} /><//>
    ${families.length > 0 && html`
      <${Card} id="times" title="Time of each stage">
        ${families.map(family => html`<${Times} key=${family.family} ...${family} />`)}
        <p class="help">Half of the steps took no longer than p50, 95 of 100 no longer than p95. Steps found in the cache took no time.</p>
      <//>`}
    <${Card} id="usage" title="Used by each tenant"><${Usage} usage=${usage} price=${price} /><//>
    <${Card} id="failures" title="Why jobs failed"><${Failures} failures=${failures} /><//>`;
}

const Card = ({ id, title, children }) => html`
  <section class="card-box" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>${children}</section>`;

/** A table that may be wider than the page: it is then moved by the arrow keys. `alone` below a heading, its name is not shown. */
const Table = ({ label, alone, heads, children }) => html`
  <div class="wide" role="region" aria-label=${label} tabindex="0">
    <table class="timings">
      <caption class=${alone ? "away" : undefined}>${label}</caption>
      <thead><tr>${heads}</tr></thead>
      <tbody>${children}</tbody>
    </table>
  </div>`;

const modelHead = () => html`<th scope="col" class="name">Model</th>`;
const heads = (...names) => names.map(name => html`<th scope="col">${name}</th>`);
const barHead = () => html`<th scope="col" class="bar-head"><span class="away">As bars</span></th>`;

/** Of `most`: so much, and behind it so much more. */
const Bar = ({ most, value, beyond = 0 }) => html`
  <td class="bars" aria-hidden="true">
    <svg viewBox="0 0 100 10" preserveAspectRatio="none" focusable="false">
      <rect class="part beyond" width=${(100 * beyond) / most} height="10" />
      <rect class="part" width=${(100 * value) / most} height="10" />
    </svg>
  </td>`;

function Days({ days }) {
  const most = Math.max(...days.map(day => day.completed + day.failed + day.cancelled));
  const busy = days.filter(day => ENDS.some(end => day[end]));
  return html`
    <ul class="legend">${ENDS.map(end => html`
      <li key=${end}><svg viewBox="0 0 1 1" aria-hidden="true"><rect class="part ${end}" width="1" height="1" /></svg
        >${sum(days, end)} ${end}</li>`)}</ul>
    <svg class="days" viewBox="0 0 ${days.length} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true" focusable="false">
      ${days.map((day, place) => html`<${Column} key=${day.day} day=${day} x=${place + 0.1} scale=${HEIGHT / most} />`)}
    </svg>
    <p class="ends">
      <span>${dayOf(days[0].day)}</span><span>up to ${count(most, "job")} a day</span><span>${dayOf(days.at(-1).day)}</span>
    </p>
    <details>
      <summary>As numbers</summary>
      <${Table} label="Days on which jobs ended" alone heads=${heads("Day", ...ENDS.map(words))}>
        ${busy.map(day => html`
          <tr key=${day.day}><th scope="row">${dayOf(day.day)}</th>${ENDS.map(end => html`<td>${day[end]}</td>`)}</tr>`)}
      <//>
    </details>`;
}

/** A day's jobs, one kind of end upon the other. */
function Column({ day, x, scale }) {
  let top = HEIGHT;
  return ENDS.map(end => {
    const height = day[end] * scale;
    top -= height;
    return height > 0 && html`<rect class="part ${end}" x=${x} y=${top} width="0.8" height=${height} />`;
  });
}

function Times({ family, waited, completed, stages }) {
  const own = stages.toSorted((one, other) => placeOf(one.stage) - placeOf(other.stage));
  const rows = [
    { name: "Waiting for its turn", times: waited },
    ...own.map(({ stage, ran, cache_hits: hits }) => ({ name: words(stage), times: ran, hits })),
    { name: "Whole job, when completed", times: completed },
  ];
  const most = Math.max(...rows.map(({ times }) => times.p95_seconds ?? 0), 1e-9);
  const told = seconds => (seconds === null ? "none" : duration(seconds));
  return html`
    <${Table} label=${family} heads=${[heads("What"), barHead(), heads("p50", "p95", "Count", "From the cache")]}>
      ${rows.map(({ name, times: { p50_seconds: half, p95_seconds: slow, count: times }, hits }) => html`
        <tr key=${name}>
          <th scope="row">${name}</th><${Bar} most=${most} value=${half ?? 0} beyond=${slow ?? 0} />
          <td>${told(half)}</td><td>${told(slow)}</td><td>${times}</td><td>${hits ?? ""}</td>
        </tr>`)}
    <//>`;
}

function Usage({ usage, price }) {
  const most = Math.max(...usage.map(({ replica_seconds: seconds }) => seconds), 1e-9), inMoney = price !== null;
  const gpus = usage.some(({ gpu_seconds: seconds }) => seconds > 0)
    ? "GPU time is how long steps ran, times the GPUs that they ran on."
    : "No step ran on a GPU: replica time, how long stages worked, is what there is.";
  const money = inMoney ? `A GPU hour is counted at ${price}.` : "The server was told no price of a GPU hour.";
  const named = ["Jobs", "Replica time", "GPU time", "Cost", ...(inMoney ? ["Money"] : [])];
  return html`
    <${Table} label="By tenant and model" alone heads=${[heads("Tenant"), modelHead(), barHead(), heads(...named)]}>
      ${usage.map(row => html`
        <tr key=${`${row.tenant} ${row.family}`}>
          <th scope="row">${row.tenant}</th><td class="name">${row.family}</td><${Bar} most=${most} value=${row.replica_seconds} />
          <td>${row.jobs}</td><td>${long(row.replica_seconds)}</td><td>${long(row.gpu_seconds)}</td>
          <td>${row.cost.toFixed(2)}</td>${inMoney && html`<td>${row.money.toFixed(2)}</td>`}
        </tr>`)}
    <//>
    <p class="help">${gpus} ${money} Cost is the predicted work, in thousand token passes.</p>`;
}

function Failures({ failures }) {
  if (!failures.length) return html`<p class="hint">None did.</p>`;
  const most = Math.max(...failures.map(failure => failure.count));
  return html`
    <${Table} label="By reason and model" alone heads=${[heads("Reason"), modelHead(), barHead(), heads("Jobs")]}>
      ${failures.map(({ family, code, count: jobs }) => html`
        <tr key=${`${family} ${code}`}>
          <th scope="row"><code>${code}</code></th><td class="name">${family}</td><${Bar} most=${most} value=${jobs} /><td>${jobs}</td>
        </tr>`)}
    <//>`;
}
