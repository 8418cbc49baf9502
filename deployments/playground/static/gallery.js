// the list of videos -> cards that open, repeat, remix, extend and delete them
import { media } from "./api.js";
import { Icon, html, useEffect, useResult } from "./view.js";
import { isLive } from "./stream.js";
import { stateOf } from "./job.js";

const ACTIONS = [["rerun", "again", "Reuse settings"], ["remix", "remix", "Remix"], ["extend", "extend", "Extend"], ["remove", "trash", "Delete"]];

/** `act(name, video)` does what a card's button says. */
export function Gallery({ videos, chosen, hasMore, onOpen, onMore, act }) {
  if (!videos.length) return html`<p class="hint">Nothing yet. What you make is kept here.</p>`;
  return html`
    <ul class="cards">
      ${videos.map(video => html`<${Card} key=${video.id} video=${video} chosen=${video.id === chosen} onOpen=${onOpen} act=${act} />`)}
    </ul>
    ${hasMore && html`<button type="button" class="quiet more" onClick=${onMore}>Show older videos</button>`}`;
}

function Card({ video, chosen, onOpen, act }) {
  const done = video.status === "completed";
  const offered = ACTIONS.filter(([name]) => done || name === "rerun" || name === "remove");
  return html`
    <li class="card ${video.status} ${chosen ? "chosen" : ""}" data-id=${video.id}>
      <button type="button" class="open" aria-current=${chosen ? "true" : undefined} onClick=${() => onOpen(video)}>
        <${Thumbnail} video=${video} />
        <span class="prompt">${video.prompt}</span>
        <span class="about">${stateOf(video)}</span>
      </button>
      <div class="card-actions">
        ${offered.map(([name, icon, label]) => html`
          <button key=${name} type="button" class="icon-only" title=${label} aria-label="${label}: ${video.prompt}" onClick=${() => act(name, video)}>
            <${Icon} name=${icon} />
          </button>`)}
      </div>
    </li>`;
}

function Thumbnail({ video }) {
  const { value } = useResult(signal => (video.status === "completed" ? media(video.id, "thumbnail", signal) : undefined), [video.id, video.status]);
  useEffect(() => () => value && URL.revokeObjectURL(value.url), [value]);
  return html`
    <span class="thumb">
      ${value ? html`<img src=${value.url} alt="" />` : html`<span class="blank" aria-hidden="true"></span>`}
      ${isLive(video) && html`<progress max="100" value=${video.progress} aria-label="Progress"></progress>`}
    </span>`;
}
