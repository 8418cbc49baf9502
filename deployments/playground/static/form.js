// fields, values, faults -> controls; every control carries its path, so that a fault finds its place
import { Button, Icon, IconButton, calm, duration, html, useEffect, useMemo, useRef, words } from "./view.js";
import { applies, groupsOf } from "./schema.js";

const idOf = path => `field-${path.replaceAll(".", "-")}`;

/** The path of the field that shows a fault at this path, or of the nearest around it; nothing where the form has none. */
export function placeOf(path) {
  for (let at = path; at; at = at.includes(".") ? at.slice(0, at.lastIndexOf(".")) : "") if (elementAt(at)) return at;
  return undefined;
}

const elementAt = path => document.querySelector(`[data-path="${CSS.escape(path)}"]`);

/** Brings a field into view and focus, wherever it is folded away. */
export function focusField(path) {
  const place = elementAt(path);
  for (let around = place.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
  const control = place.matches("input, select, textarea") ? place : place.querySelector("input, select, textarea, button");
  control.focus({ preventScroll: true });
  place.scrollIntoView({ block: "center", behavior: calm() ? "auto" : "smooth" });
}

/** All settings of a pipeline: the usual ones, then groups of the others. */
export function Settings({ fields, values, faults, set }) {
  const groups = useMemo(() => groupsOf(fields), [fields]);
  return groups.map(([group, inside]) => {
    const shown = inside.filter(field => applies(field, values));
    const controls = shown.map(field => html`
      <${Field} key=${field.name} field=${field} path=${field.name} value=${values[field.name]} faults=${faults}
        note=${field.name === "num_frames" && lengthOf(fields, values)} set=${value => set(field.name, value)} />`);
    if (!group) return html`<div class="fields" key="usual">${controls}</div>`;
    const changed = inside.filter(({ name }) => values[name] !== undefined).length;
    const faulty = Object.keys(faults).some(path => inside.some(({ name }) => name === path.split(".")[0]));
    return html`
      <details class="group" key=${group}>
        <summary>
          <span>${group}</span>
          ${faulty ? html`<small class="bad">needs a look</small>` : changed > 0 && html`<small>${changed} changed</small>`}
        </summary>
        <div class="fields">${controls}</div>
      </details>`;
  });
}

/** How long the frames last, where the numbers make sense. */
function lengthOf(fields, values) {
  const [frames, rate] = ["num_frames", "fps"].map(name => values[name] ?? fields.find(field => field.name === name)?.initial);
  return frames > 0 && rate > 0 ? `frames, ${duration(frames / rate)}` : "frames";
}

/** One control with its label, its words of help and what is wrong with it. */
function Field({ field, path, value, faults, set, note }) {
  const id = idOf(path), wrong = faults[path]?.message;
  const about = [field.help && `${id}-help`, wrong && `${id}-fault`].filter(Boolean).join(" ") || undefined;
  const common = { id, "data-path": path, "aria-describedby": about, "aria-invalid": wrong ? "true" : undefined };
  const Control = CONTROLS[field.kind];
  return html`
    <div class="field kind-${field.kind} ${wrong ? "wrong" : ""}">
      <${Control} field=${field} path=${path} value=${value} faults=${faults} set=${set} common=${common} note=${note} />
      ${field.help && html`<p class="help" id="${id}-help">${field.help}</p>`}
      <div aria-live="polite">${wrong && html`<p class="fault" id="${id}-fault">${wrong}</p>`}</div>
    </div>`;
}

const Label = ({ field, common, children }) => html`<div class="label"><label for=${common.id}>${field.label}</label>${children}</div>`;
const numberOf = text => (text.trim() === "" ? undefined : isNaN(text) ? text : Number(text));

function Text({ field, value, set, common }) {
  return html`
    <${Label} field=${field} common=${common} />
    <input type="text" ...${common} value=${value ?? ""} placeholder=${field.initial ?? ""}
      onInput=${e => set(e.target.value || undefined)} />`;
}

/** A number in words and, where it has two ends, on a slider. */
function NumberControl({ field, value, set, common, note }) {
  const { minimum, exclusiveMinimum, maximum, exclusiveMaximum, every, type } = field.schema;
  const low = minimum ?? exclusiveMinimum, high = maximum ?? exclusiveMaximum;
  const step = every ?? (type === "integer" ? 1 : high - low > 10 ? 0.5 : 0.05);
  const shown = value ?? field.initial;
  const random = field.name === "seed";
  return html`
    <${Label} field=${field} common=${common}>
      <input type="text" inputmode=${type === "integer" ? "numeric" : "decimal"} autocomplete="off" ...${common} value=${shown ?? ""}
        placeholder=${random ? "random" : ""} onInput=${e => set(numberOf(e.target.value))} />
      ${note && html`<span class="note">${note}</span>`}
    <//>
    ${high - low <= 1000 && html`
      <input type="range" aria-label=${field.label} min=${low} max=${high} step=${step} value=${shown ?? low}
        style=${{ "--at": (shown - low) / (high - low) || 0 }} onInput=${e => set(Number(e.target.value))} />`}`;
}

function Choice({ field, value, set, common }) {
  const options = field.schema.enum, chosen = value ?? field.initial;
  const pick = event => set(options[event.target.value] ?? undefined);
  return html`
    <${Label} field=${field} common=${common}>
      <select ...${common} value=${options.indexOf(chosen)} onChange=${pick}>
        ${field.initial === undefined && html`<option value="-1">${field.required ? "Choose…" : "Automatic"}</option>`}
        ${options.map((option, place) => html`<option key=${option} value=${place}>${String(option).replaceAll("_", " ")}</option>`)}
      </select>
    <//>`;
}

function Toggle({ field, value, set, common }) {
  const on = value ?? field.initial ?? false;
  return html`
    <label class="toggle">
      <input type="checkbox" ...${common} checked=${on} onChange=${e => set(e.target.checked)} /><span>${field.label}</span>
    </label>`;
}

function Size({ field, value, set, common }) {
  const chosen = value ?? field.initial, preset = field.sizes.some(size => size.value === chosen);
  const [width, height] = chosen.split("x");
  return html`
    <fieldset class="plain" data-path=${common["data-path"]} aria-describedby=${common["aria-describedby"]}>
      <legend>Size</legend>
      <div class="chips">
        ${field.sizes.map(size => html`
          <label key=${size.name} class="chip">
            <input type="radio" name="size" checked=${size.value === chosen} onChange=${() => set(size.value)} />
            <${Shape} value=${size.value} /><span>${size.name}<small>${size.value.replace("x", " × ")}</small></span>
          </label>`)}
        <label class="chip own ${preset ? "" : "chosen"}">
          <span class="pair">
            <input type="text" inputmode="numeric" aria-label="Width in pixels" aria-invalid=${common["aria-invalid"]} value=${width}
              onInput=${e => set(`${e.target.value}x${height}`)} />
            <span aria-hidden="true">×</span>
            <input type="text" inputmode="numeric" aria-label="Height in pixels" aria-invalid=${common["aria-invalid"]} value=${height}
              onInput=${e => set(`${width}x${e.target.value}`)} />
          </span>
        </label>
      </div>
    </fieldset>`;
}

function Shape({ value }) {
  const [width, height] = value.split("x").map(Number), scale = 14 / Math.max(width, height);
  const [w, h] = [width * scale, height * scale];
  return html`
    <svg class="shape" viewBox="0 0 16 16" aria-hidden="true"><rect x=${8 - w / 2} y=${8 - h / 2} width=${w} height=${h} rx="1.5" /></svg>`;
}

function Pair({ field, value, set, common }) {
  const both = value ?? field.initial;
  const put = (place, number) => set(both.map((old, at) => (at === place ? number ?? field.initial[place] : old)));
  return html`
    <fieldset class="plain" data-path=${common["data-path"]} aria-describedby=${common["aria-describedby"]}>
      <legend>${field.label}</legend>
      <span class="pair">
        ${both.map((number, place) => html`
          <input type="text" inputmode="decimal" aria-label=${["Lowest", "Highest"][place]} aria-invalid=${common["aria-invalid"]}
            value=${number} onInput=${e => put(place, numberOf(e.target.value))} />`)}
      </span>
    </fieldset>`;
}

function Lines({ field, value, set, common }) {
  return html`
    <${Label} field=${field} common=${common} />
    <textarea ...${common} rows="2" placeholder="One to a line" value=${(value ?? []).join("\n")}
      onInput=${e => set(e.target.value ? e.target.value.split("\n") : undefined)}></textarea>`;
}

/** Settings that count only together, switched on as one. */
function Group({ field, path, value, faults, set, common }) {
  return html`
    <label class="toggle">
      <input type="checkbox" ...${common} checked=${value !== undefined} onChange=${e => set(e.target.checked ? {} : undefined)} />
      <span>${field.label}</span>
    </label>
    ${value !== undefined && html`
      <fieldset class="nested"><legend class="away">${field.label}</legend>
        <${Children} fields=${field.children} at="${path}." values=${value} faults=${faults} set=${set} />
      </fieldset>`}`;
}

function Children({ fields, at, values, faults, set }) {
  return fields.map(child => html`
    <${Field} key=${child.name} field=${child} path=${at + child.name} value=${values[child.name]} faults=${faults}
      set=${value => set({ ...values, [child.name]: value })} />`);
}

function Rows({ field, path, value = [], faults, set, common }) {
  const list = useRef(null), grown = useRef(false);
  useEffect(() => {
    if (grown.current) list.current.querySelector("fieldset:last-of-type :is(input, select)")?.focus();
    grown.current = false;
  }, [value.length]);
  const put = rows => set(rows.length ? rows : undefined);
  const remove = place => { put(value.filter((_, at) => at !== place)); list.current.querySelector(".add").focus(); };
  const add = () => { grown.current = true; put([...value, {}]); };
  const one = words(field.name).replace(/s$/, "");
  return html`
    <fieldset class="plain" ref=${list} data-path=${path} aria-describedby=${common["aria-describedby"]}>
      <legend>${field.label}</legend>
      ${value.map((row, place) => html`
        <fieldset class="nested row" data-path="${path}.${place}" key=${place}>
          <legend class="away">${one} ${place + 1}</legend>
          <${Children} fields=${field.children} at="${path}.${place}." values=${row} faults=${faults}
            set=${changed => put(value.map((old, at) => (at === place ? changed : old)))} />
          ${faults[`${path}.${place}`] && html`<p class="fault">${faults[`${path}.${place}`].message}</p>`}
          <${IconButton} icon="close" label="Remove ${one.toLowerCase()} ${place + 1}" onClick=${() => remove(place)} />
        </fieldset>`)}
      <${Button} icon="plus" class="quiet add" onClick=${add}>Add<//>
    </fieldset>`;
}

const MEDIA = {
  picture: ["image/png,image/jpeg,image/webp", "picture", ({ url }) => html`<img src=${url} alt="" />`],
  footage: ["video/mp4,video/quicktime,video/webm", "video", ({ url }) => html`<video src=${url} muted></video>`],
  sound: ["audio/*,video/mp4,video/webm", "sound", ({ url }) => html`<audio src=${url}></audio>`],
};

/** A file of one's own: chosen, or dropped on the control. */
function Medium({ field, value, set, common }) {
  const url = useMemo(() => value && URL.createObjectURL(value), [value]);
  useEffect(() => () => url && URL.revokeObjectURL(url), [url]);
  const input = useRef(null);
  const take = files => files[0] && set(files[0]);
  const drop = event => { event.preventDefault(); take(event.dataTransfer.files); };
  const clear = () => { input.current.value = ""; set(undefined); input.current.focus(); };
  const [accept, what, Shown] = MEDIA[field.kind];
  return html`
    <div class="drop" onDragOver=${e => e.preventDefault()} onDrop=${drop}>
      <label class="file">
        ${url ? html`<${Shown} url=${url} />` : html`<${Icon} name="picture" />`}
        <span>${field.label}<small>${value ? value.name : `Choose or drop a ${what}`}</small></span>
        <input ref=${input} type="file" class="away" accept=${accept} ...${common} onChange=${e => take(e.target.files)} />
      </label>
      ${value && html`<${IconButton} icon="close" label="Remove ${value.name}" onClick=${clear} />`}
    </div>`;
}

const CONTROLS = {
  number: NumberControl, choice: Choice, toggle: Toggle, size: Size, pair: Pair, lines: Lines, group: Group, rows: Rows,
  picture: Medium, footage: Medium, sound: Medium, text: Text, numbers: Text,
};
