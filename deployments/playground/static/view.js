// templates -> elements: what every part of the page is made with
import { h } from "./vendor/preact.js";
import { useCallback, useEffect, useRef, useState } from "./vendor/preact-hooks.js";
import htm from "./vendor/htm.js";

export { render } from "./vendor/preact.js";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";
export const html = htm.bind(h);

const ICONS = {
  again: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4.5h4.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  down: "M12 4v11m0 0l-4.5-4.5M12 15l4.5-4.5M5 20h14",
  extend: "M4 7h9v10H4zM16 12h5m-2.2-2.5L21.3 12l-2.5 2.5",
  key: "M4 16a4 4 0 1 0 8 0a4 4 0 1 0-8 0M10.9 13.1L20 4M16.5 7.5l2.5 2.5",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.2v.1",
  plus: "M12 5v14M5 12h14",
  remix: "M4 17c7 0 7-10 14-10m0 0l-3-3m3 3l-3 3M4 7c3 0 4.5 1.8 5.6 3.8M12.5 14.2C13.6 16 15 17 18 17m0 0l-3-3m3 3l-3 3",
  sound: "M4 9.500v5h3.500l4.500 4v-13l-4.500 4zM15.500 9a4 4 0 0 1 0 6M18 6.500a8 8 0 0 1 0 11",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.300 11v5M13.700 11v5",
};

export const Icon = ({ name }) => html`
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${ICONS[name]} /></svg>`;

export const Button = ({ icon, children, ...more }) => html`
  <button type="button" ...${more}>${icon && html`<${Icon} name=${icon} />`}${children}</button>`;
export const IconButton = ({ icon, label, ...more }) => html`
  <button type="button" class="icon-only" aria-label=${label} ...${more}><${Icon} name=${icon} /></button>`;
/** What a control says of its fault, told below it. */
export const explained = (fault, id) => ({ "aria-invalid": fault ? "true" : undefined, "aria-describedby": fault ? id : undefined });

/** A modal dialog; the browser keeps the focus inside and gives it back. `onClose` hears of Escape too. */
export function Dialog({ label, onClose, children }) {
  const ref = useRef(null);
  useEffect(() => {
    const dialog = ref.current, before = document.activeElement;
    dialog.showModal();
    return () => { dialog.close(); if (before?.isConnected) before.focus(); };
  }, []);
  return html`
    <dialog ref=${ref} aria-labelledby="dialog-title" onCancel=${event => { event.preventDefault(); onClose(); }}>
      <h2 id="dialog-title">${label}</h2>
      ${children}
    </dialog>`;
}

/** Copies a text and says so where a screen reader hears it. */
export function CopyButton({ text, label = "Copy" }) {
  const [said, say] = useState("");
  const copy = useCallback(async () => {
    say(await copied(text) ? "Copied" : "Select the text to copy it");
    setTimeout(say, 2000, "");
  }, [text]);
  return html`<${Button} icon="copy" class="quiet" onClick=${copy}><span role="status">${said || label}</span><//>`;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text); // absent where the page came neither by https nor from this machine
    return true;
  } catch {
    return false;
  }
}

/** The result of `make()` as soon as it is there, and what went wrong; made anew when `inputs` change. */
export function useResult(make, inputs) {
  const [result, setResult] = useState({});
  useEffect(() => {
    const stop = new AbortController();
    setResult({});
    Promise.resolve(make(stop.signal)).then(
      value => stop.signal.aborted || setResult({ value }),
      error => stop.signal.aborted || setResult({ error }),
    );
    return () => stop.abort();
  }, inputs);
  return result;
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const WRITTEN = { vae: "VAE", ti2vid: "text to video,", "ic lora": "IC-LoRA" };
const written = name => name.replaceAll("_", " ").replace(/\b(vae|ti2vid|ic lora)\b/g, word => WRITTEN[word]);
export const words = name => written(name).replace(/^./, letter => letter.toUpperCase());
export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

export function duration(seconds) {
  if (seconds >= 90) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return seconds >= 0.9995 ? `${+seconds.toPrecision(3)} s` : `${Math.round(seconds * 1000)} ms`;
}
