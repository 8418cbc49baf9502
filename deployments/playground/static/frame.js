// the session's state, what is to be said or asked -> what stands around the page's work: header, banners, dialogs, the first sight
import { ANALYTICS } from "./analytics.js";
import { declineKey, forgetKey, giveKey, hasKey, wantKey } from "./api.js";
import { EXAMPLES } from "./compose.js";
import { isLive } from "./stream.js";
import { Button, Dialog, IconButton, explained, html, useState } from "./view.js";

/** `video` is what the address named before the figures. */
export function Header({ state, jobs = {}, video = "", counting = false }) {
  const word = !state.online ? "Offline" : state.starting ? "Starting" : "Ready";
  const load = [jobs.in_progress && `${jobs.in_progress} running`, jobs.queued && `${jobs.queued} queued`].filter(Boolean).join(", ");
  return html`
    <header>
      <h1>AIPROD <span>playground</span></h1>
      <nav aria-label="Pages">
        <a href="#${video}" aria-current=${counting ? undefined : "page"}>Videos</a>
        <a href="#${ANALYTICS}" aria-current=${counting ? "page" : undefined}>Analytics</a>
      </nav>
      <p class="health ${word.toLowerCase()}">
        <span class="light" aria-hidden="true"></span>${word}${load && html`<small>${load}</small>`}
      </p>
      <${Button} icon="key" class="quiet key" onClick=${wantKey}><span>${hasKey() ? "API key set" : "API key"}</span><//>
      ${state.asking && html`<${KeyDialog} refused=${state.refused} />`}
    </header>`;
}

export function Banners({ state, notice, dismiss }) {
  const word = !state.online
    ? "The server does not answer. Trying again by itself; nothing is lost."
    : state.starting && `The server is starting: ${state.starting}. This page goes on when it is ready.`;
  return html`
    <div class="banners">
      <div role="status">${word && html`<p class="banner">${word}</p>`}</div>
      ${state.locked && html`
        <p class="banner">The server wants an API key. <${Button} class="quiet" onClick=${wantKey}>Enter a key<//></p>`}
      ${notice && html`
        <p class="banner alert" role="alert"><span>${notice}</span><${IconButton} icon="close" label="Dismiss" onClick=${dismiss} /></p>`}
    </div>`;
}

/** What is seen where there is no video yet. */
export function Welcome({ family, use }) {
  return html`
    <div class="screen welcome">
      <p class="lead">Say what should happen.</p>
      <p>${family.title}</p>
      <ul>${EXAMPLES.map(example => html`
        <li key=${example}><${Button} class="example" onClick=${() => use(example)}>${example}<//></li>`)}</ul>
    </div>`;
}

function KeyDialog({ refused }) {
  const [key, setKey] = useState("");
  const [fault, setFault] = useState(refused ? "The server does not know this key. Check it, or enter another." : "");
  const submit = event => {
    event.preventDefault();
    if (/^[\x21-\x7e]+$/.test(key.trim())) giveKey(key.trim());
    else setFault("A key has letters, digits and signs, and no spaces.");
  };
  const forget = () => { forgetKey(); declineKey(); };
  return html`
    <${Dialog} label="API key" onClose=${declineKey}>
      <form onSubmit=${submit} noValidate>
        <p>The server asks who you are. The key stays in this tab and is forgotten when you close it.</p>
        <label for="api-key">Key</label>
        <input id="api-key" type="password" autocomplete="off" spellcheck=${false} placeholder="ap_…" value=${key}
          ...${explained(fault, "api-key-fault")} onInput=${e => setKey(e.target.value)} />
        ${fault && html`<p class="fault" id="api-key-fault" role="alert">${fault}</p>`}
        <div class="actions">
          <button class="primary">Use this key</button>
          <${Button} onClick=${declineKey}>Not now<//>
          ${hasKey() && html`<${Button} class="quiet" onClick=${forget}>Forget the key<//>`}
        </div>
      </form>
    <//>`;
}

export function Farewell({ video, onClose, onDelete }) {
  return html`
    <${Dialog} label="Delete this video?" onClose=${onClose}>
      <p class="prompt">${video.prompt}</p>
      <p>${isLive(video) ? "It is stopped first. " : ""}It cannot be brought back.</p>
      <div class="actions"><${Button} class="danger" onClick=${onDelete}>Delete<//><${Button} onClick=${onClose}>Keep<//></div>
    <//>`;
}
