// the list of videos -> cards that open, repeat, remix, extend and delete them
import { Button, Icon, IconButton, html } from "./view.js";
import { isLive, isSound } from "./stream.js";
import { isOffered, stateOf, useMedia } from "./job.js";

const ACTIONS = {
  rerun: ["again", "Reuse settings"], remix: ["remix", "Remix"], extend: ["extend", "Extend"], remove: ["trash", "Delete"],
};
const ALWAYS = ["rerun", "remove"];

/** `act(name, video)` does what a card's button says. */
export function Gallery({ videos, chosen, hasMore, onOpen, onMore, act }) {
  if (!videos.length) return html`<p class="hint">Nothing yet. What you make is kept here.</p>`;
  return html`
    <ul class="cards">
      ${videos.map(video => html`<${Card} key=${video.id} video=${video} chosen=${video.id === chosen} onOpen=${onOpen} act=${act} />`)}
    </ul>
    ${hasMore && html`<${Button} class="quiet more" onClick=${onMore}>Show older videos<//>`}`;
}

function Card({ video, chosen, onOpen, act }) {
  const offered = Object.entries(ACTIONS).filter(([name]) => ALWAYS.includes(name) || isOffered(name, video));
  return html`
    <li class="card ${video.status} ${chosen ? "chosen" : ""}" data-id=${video.id}>
      <button type="button" class="open" aria-current=${chosen ? "true" : undefined} onClick=${() => onOpen(video)}>
        <${Thumbnail} video=${video} />
        <span class="prompt">${video.prompt}</span>
        <span class="about">${stateOf(video)}</span>
      </button>
      <div class="card-actions">
        ${offered.map(([name, [icon, label]]) => html`
          <${IconButton} key=${name} icon=${icon} title=${label} label="${label}: ${video.prompt}" onClick=${() => act(name, video)} />`)}
      </div>
    </li>`;
}

function Thumbnail({ video }) {
  const { value } = useMedia(video, "thumbnail");
  return html`
    <span class="thumb">
      ${value ? html`<img src=${value.url} alt="" />` : html`<span class="blank">${isSound(video) && html`<${Icon} name="sound" />`}</span>`}
      ${isLive(video) && html`<progress max="100" value=${video.progress} aria-label="Progress"></progress>`}
    </span>`;
}
