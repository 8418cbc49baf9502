// the server's list of videos and what made those of this tab -> the list that is shown, drafts to make them again
import { read } from "./api.js";
import { fieldsOf, valuesFrom } from "./schema.js";
import { isLive } from "./stream.js";
import { useRef, useState } from "./view.js";

const PAGE = 24;
const RECIPES = "aiprod.recipes", MOST_RECIPES = 100;
const recipes = new Map(Object.entries(JSON.parse(sessionStorage.getItem(RECIPES) ?? "{}")));

// --- what made a video
export function remember(id, draft) {
  recipes.set(id, draft);
  const plain = [...recipes].slice(-MOST_RECIPES).map(([name, kept]) => [name, { ...kept, values: withoutFiles(kept.values) }]);
  sessionStorage.setItem(RECIPES, JSON.stringify(Object.fromEntries(plain)));
}

const holdsFile = value => value instanceof Blob || (Array.isArray(value) && value.some(row => row && Object.values(row).some(holdsFile)));
const withoutFiles = values => Object.fromEntries(Object.entries(values).filter(([, value]) => !holdsFile(value)));

/** The recipe of a remix: its source's with another prompt, if that is known. */
export function remixed({ id, seed }, prompt) {
  const recipe = recipes.get(id);
  return recipe && { ...recipe, prompt, values: { ...recipe.values, seed } };
}

/** The draft that made a video: remembered, else what the video says of itself. */
export function draftOf(video, families) {
  if (recipes.has(video.id)) return recipes.get(video.id);
  const family = families.find(({ id }) => video.model?.split("/")[0] === id) ?? families[0];
  const pipeline = video.pipeline in family.pipelines ? video.pipeline : family.default_pipeline;
  return { model: family.id, pipeline, prompt: video.prompt, values: valuesFrom(video, fieldsOf(family, pipeline)) };
}

/** Whether a video does not say all that made it. */
export const isDerived = video => Boolean(video.remixed_from_video_id) && !recipes.has(video.id);

// --- the list, in the server's order: newest first
const later = (old, seen) => (old && !isLive(old) ? old : seen); // what has ended stays ended, whatever answer comes late
const without = (list, gone) => list.filter(({ id }) => id !== gone);

function withVideo(list, video) {
  if (list.some(({ id }) => id === video.id)) return list.map(old => (old.id === video.id ? later(old, video) : old));
  const place = list.findIndex(old => old.created_at <= video.created_at);
  return place < 0 ? [...list, video] : list.toSpliced(place, 0, video);
}

/** A first page over what is known: the watched video is newer than any page, and what is older than the page stays. */
function withPage(list, { data, has_more: hasMore }, watched) {
  const known = Object.fromEntries(list.map(video => [video.id, video])), fresh = new Set(data.map(({ id }) => id));
  const older = hasMore ? list.filter(video => !fresh.has(video.id) && video.created_at <= data.at(-1).created_at) : [];
  return [...data.map(video => (video.id === watched && known[watched]) || later(known[video.id], video)), ...older];
}

export function useVideos() {
  const [list, setList] = useState([]), [hasMore, setMore] = useState(false), [loaded, setLoaded] = useState(false);
  const changes = useRef(0); // of what is in the list: a page that was asked for before one is out of date
  const fetchPage = (after, options) => read(`v1/videos?limit=${PAGE}&order=desc${after ? `&after=${after}` : ""}`, options);
  return {
    list, hasMore, loaded,
    upsert(video) {
      if (!list.some(({ id }) => id === video.id)) changes.current++;
      setList(old => withVideo(old, video));
    },
    drop(id) {
      changes.current++;
      setList(old => without(old, id));
    },
    async refresh(watched) {
      const before = changes.current, page = await fetchPage(null, { quiet: true });
      if (changes.current !== before) return;
      setList(old => withPage(old, page, watched));
      if (list.length <= PAGE) setMore(page.has_more);
      setLoaded(true);
    },
    async more() {
      const page = await fetchPage(list.at(-1).id);
      setList(old => [...old, ...page.data.filter(({ id }) => !old.some(video => video.id === id))]);
      setMore(page.has_more);
      return page.data[0];
    },
  };
}
