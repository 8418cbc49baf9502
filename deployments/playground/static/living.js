// what happens by itself -> state: the session, the address, looking again and again, following a video
import { pause, read, session, subscribe } from "./api.js";
import { bodyOf, fieldsOf, requestOf } from "./schema.js";
import { watch } from "./stream.js";
import { draftOf, isDerived } from "./videos.js";
import { useEffect, useLayoutEffect, useRef, useState } from "./view.js";

export function useSession() {
  const [, again] = useState(0);
  useLayoutEffect(() => subscribe(() => again(n => n + 1)), []);
  return session;
}

/** What the page's address names. */
export function useHash() {
  const [hash, setHash] = useState(location.hash.slice(1));
  useEffect(() => {
    const follow = () => setHash(location.hash.slice(1));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return hash;
}

/** Does `look` again and again, but not behind another window. */
export function useLooking(look, milliseconds) {
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

/** Follows a video to its end. Answers its latest preview. */
export function useWatching(id, live, { onVideo, onProblem }) {
  const [preview, setPreview] = useState(null);
  useEffect(() => setPreview(null), [id]);
  useEffect(() => (id && live ? watch(id, { onVideo, onPreview: setPreview, onProblem }) : undefined), [id, live]);
  return preview;
}

/** The plan of a video, asked for once; nothing where its settings are not known whole. */
export function useJobPlan(video, families) {
  const [plans, setPlans] = useState({});
  useEffect(() => {
    if (!video || video.id in plans || isDerived(video)) return;
    const { model, pipeline, prompt, values } = draftOf(video, families);
    const body = bodyOf(fieldsOf(families.find(({ id }) => id === model), pipeline), values, { model: `${model}/${pipeline}`, prompt });
    const keep = plan => setPlans(old => ({ ...old, [video.id]: plan }));
    read("v1/plans", { method: "POST", quiet: true, ...requestOf(body) }).then(keep, () => keep(undefined));
  }, [video?.id]);
  return plans[video?.id];
}
