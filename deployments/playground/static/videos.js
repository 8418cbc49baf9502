// the server's list of videos and what made those of this tab -> the list that is shown, drafts to make them again
import { read } from "./api.js";
import { fieldsOf, valuesFrom } from "./schema.js";
import { isLive } from "./stream.js";
import { useState } from "./view.js";

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

// --- the list
const newest = (one, other) => other.created_at - one.created_at || (one.id < other.id ? 1 : -1);
const later = (old, seen) => (old && !isLive(old) ? old : seen); // what has ended stays ended, whatever answer comes late

/** A first page over what is known: the watched video is newer than any page, and older ones than the page's stay. */
function merged(old, { data, has_more: hasMore }, watched) {
  const known = Object.fromEntries(old.map(video => [video.id, video])), last = data.at(-1);
  const fresh = data.map(video => (video.id === watched && known[watched]) || later(known[video.id], video));
  return [...fresh, ...(hasMore ? old.filter(video => newest(video, last) > 0) : [])].sort(newest);
}

export function useVideos() {
  const [list, setList] = useState([]), [hasMore, setMore] = useState(false), [loaded, setLoaded] = useState(false);
  const without = (old, gone) => old.filter(({ id }) => id !== gone);
  const put = (old, video) => [later(old.find(({ id }) => id === video.id), video), ...without(old, video.id)].sort(newest);
  const fetchPage = (after, options) => read(`v1/videos?limit=${PAGE}&order=desc${after ? `&after=${after}` : ""}`, options);
  return {
    list, hasMore, loaded,
    upsert: video => setList(old => put(old, video)),
    drop: id => setList(old => without(old, id)),
    async refresh(watched) {
      const page = await fetchPage(null, { quiet: true });
      setList(old => merged(old, page, watched));
      if (list.length <= PAGE) setMore(page.has_more);
      setLoaded(true);
    },
    async more() {
      const page = await fetchPage(list.at(-1).id);
      setList(old => page.data.reduce(put, old));
      setMore(page.has_more);
      return page.data[0];
    },
  };
}
