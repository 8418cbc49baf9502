// a pipeline's JSON schema and its family's limits -> the form's fields; what is filled in -> what is wrong with it, and the body to send
import { words } from "./view.js";

const ELSEWHERE = new Set(["model", "pipeline", "prompt", "seconds"]); // num_frames says what seconds would
const LABELS = {
  num_frames: "Length", num_inference_steps: "Steps", guidance_scale: "Guidance", fps: "Frames per second", loras: "LoRAs",
  input_reference: "First frame", image_strength: "Hold on to the first frame", scale: "Scale", image_url: "Picture",
  double_frame_rate: "Double the frame rate", next_prompts: "Prompts of later chunks", guidance_rescale: "Rescale",
  guidance_interval: "Between noise levels", skip_guidance: "Skip guidance (STG)", projected_guidance: "Projected guidance (APG)",
};
const GROUPS = {
  "": ["input_reference", "image_strength", "reference_video", "reference_strength", "from_seconds", "to_seconds",
    "keep_sound", "sound", "control", "control_scale", "keyframes", "size",
    "num_frames", "num_inference_steps", "guidance_scale", "seed"],
  Guidance: ["negative_prompt", "guidance_rescale", "guidance_interval", "skip_guidance", "projected_guidance"],
  Sampling: ["sampler", "scheduler", "sigmas"],
  Output: ["fps", "upscale", "double_frame_rate", "output_format"],
  More: [],
};
const ORDER = Object.entries(GROUPS).flatMap(([group, names]) => names.map(name => [name, group]));
const GROUP_OF = Object.fromEntries(ORDER);
const PLACE = Object.fromEntries(ORDER.map(([name], place) => [name, place]));
const MEDIA = { video_url: "footage", audio_url: "sound", image_url: "picture" };
const FILES = Object.values(MEDIA);
const NEEDS = { image_strength: "input_reference", reference_strength: "reference_video" };

/** The fields of a pipeline in the order in which the form shows them. */
export function fieldsOf(family, pipeline) {
  const root = family.pipelines[pipeline].fields;
  const names = Object.keys(root.properties).filter(name => !ELSEWHERE.has(name) && family.abilities?.[name] !== false);
  const grid = "size" in root.properties ? family.grid : { ...family.grid, time: 1 }; // where nothing is seen any length will do
  const fields = names.map(name => bounded(describe(name, root.properties[name], root, root.required), { ...family, grid }));
  return fields.sort((one, other) => (PLACE[one.name] ?? 99) - (PLACE[other.name] ?? 99));
}

export function groupsOf(fields) {
  const groups = Object.keys(GROUPS).map(group => [group, fields.filter(({ name }) => (GROUP_OF[name] ?? "More") === group)]);
  return groups.filter(([, inside]) => inside.length);
}

/** Whether a field can say anything, given the others. */
export const applies = (field, values) => !(field.name in NEEDS) || values[NEEDS[field.name]] !== undefined;

function describe(name, raw, root, required = []) {
  const { schema, nullable } = resolve(raw, root);
  const kind = kindOf(schema);
  const field = { name, kind, schema, nullable, required: required.includes(name), initial: raw.default ?? undefined,
    label: LABELS[name] ?? words(name), help: raw.description ?? schema.description ?? "" };
  if (kind === "group") field.children = childrenOf(schema, root);
  if (kind === "rows") field.children = childrenOf(resolve(schema.items, root).schema, root);
  return field;
}

/** What a reference points to. `null` among alternatives only says that it may be left out, a file that it may be sent as one. */
function resolve(raw, root) {
  if (raw.$ref) return resolve(root.$defs[raw.$ref.split("/").pop()], root);
  if (!raw.anyOf) return { schema: raw, nullable: false };
  const kept = raw.anyOf.filter(({ type, format }) => type !== "null" && format !== "binary");
  return { schema: resolve(kept[0], root).schema, nullable: kept.length < raw.anyOf.length };
}

function kindOf({ type, properties, enum: options, prefixItems, items }) {
  if (options) return "choice";
  if (properties) return Object.entries(MEDIA).find(([url]) => url in properties)?.[1] ?? "group";
  if (prefixItems) return "pair";
  if (type === "array") return items.$ref || items.properties ? "rows" : items.type === "string" ? "lines" : "numbers";
  return { integer: "number", number: "number", boolean: "toggle" }[type] ?? "text";
}

/** A keyframe's picture comes as data or as a file: here that is one field. */
function childrenOf({ properties, required }, root) {
  const medium = "image_url" in properties;
  const names = Object.keys(properties).filter(name => !(medium && name === "file"));
  return names.map(name => {
    const child = describe(name, properties[name], root, required);
    return medium && name === "image_url" ? { ...child, kind: "picture", required: true, help: "" } : child;
  });
}

/** What the family adds to the schema: its limits, its grid, what it has weights for. */
function bounded(field, { limits, grid, abilities, loras }) {
  const usable = loras.filter(({ fault }) => !fault);
  const more = {
    num_frames: { minimum: 1, maximum: limits.max_frames, every: grid.time },
    num_inference_steps: { maximum: limits.max_steps },
    seed: { maximum: Number.MAX_SAFE_INTEGER },
    upscale: { enum: field.schema.enum?.filter(scale => abilities.upscale.includes(scale)) },
    control: { enum: usable.filter(({ control }) => control).map(({ name }) => name) },
  }[field.name];
  if (more?.enum?.length === 0) delete more.enum;
  if (field.name === "size") return { ...field, kind: "size", sizes: sizesOf(field.initial, limits, grid), limits };
  if (field.name === "loras") Object.assign(field.children[0], { kind: "choice", schema: { enum: usable.map(({ name }) => name) } });
  return more ? { ...field, schema: { ...field.schema, ...more }, kind: more.enum ? "choice" : field.kind } : field;
}

/** Sizes of about the usual number of pixels, in sides that the latent grid divides at half size too. */
function sizesOf(usual, limits, grid) {
  const [width, height] = usual.split("x").map(Number), unit = 2 * grid.space;
  const fit = side => Math.min(Math.max(Math.round(side / unit) * unit, unit), limits.max_side);
  const shapes = { Square: 1, Wide: 16 / 9, Tall: 9 / 16 };
  const made = Object.entries(shapes).map(([name, ratio]) => {
    const side = Math.sqrt(width * height * ratio);
    return { name, value: `${fit(side)}x${fit(side / ratio)}` };
  });
  const others = made.filter(({ value }) => value !== usual);
  return others.length < made.length ? made : [{ name: "Usual", value: usual }, ...others];
}

// --- what is wrong with what is filled in: path -> a sentence
export function check(fields, values, at = "") {
  const wrong = {};
  for (const field of fields) {
    if (!applies(field, values)) continue;
    const value = values[field.name], path = at + field.name;
    if (value === undefined) {
      if (field.required && field.initial === undefined) wrong[path] = { missing: true, message: "This is needed." };
    } else Object.assign(wrong, CHECKS[field.kind]?.(field, value, path));
  }
  return wrong;
}

const fault = (path, message) => ({ [path]: { message } });
const each = (values, make) => Object.assign({}, ...values.map(make));
const CHECKS = {
  number: ({ schema }, value, path) => numberFault(schema, value, path),
  group: ({ children }, value, path) => check(children, value, `${path}.`),
  pair: ({ schema }, value, path) => each(value, (number, place) => numberFault(schema.prefixItems[place], number, path)),
  numbers: ({ schema }, value, path) =>
    listFault(schema, numbersIn(value), path, "numbers") ?? each(numbersIn(value), number => numberFault(schema.items, number, path)),
  lines: ({ schema }, value, path) => listFault(schema, value.filter(Boolean), path, "lines"),
  rows: ({ schema, children, required }, value, path) =>
    listFault({ minItems: required ? 1 : 0, ...schema }, value, path, "entries")
    ?? each(value, (row, place) => check(children, row, `${path}.${place}.`)),
  size: ({ limits }, value, path) => sizeFault(limits, value, path),
};

function numberFault(schema, value, path) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, every } = schema;
  if (typeof value !== "number" || !Number.isFinite(value)) return fault(path, `Must be a number, got “${value}”.`);
  if (schema.type === "integer" && !Number.isInteger(value)) return fault(path, `Must be a whole number, got ${value}.`);
  if (value < minimum) return fault(path, `Must be at least ${minimum}, got ${value}.`);
  if (value > maximum) return fault(path, `Must be at most ${maximum}, got ${value}.`);
  if (value <= exclusiveMinimum) return fault(path, `Must be more than ${exclusiveMinimum}, got ${value}.`);
  if (value >= exclusiveMaximum) return fault(path, `Must be less than ${exclusiveMaximum}, got ${value}.`);
  if (every && (value - 1) % every) {
    return fault(path, `Must be 1 + a multiple of ${every}, got ${value}; nearest is ${1 + Math.round((value - 1) / every) * every}.`);
  }
  return {};
}

function listFault({ minItems = 0, maxItems = Infinity }, { length }, path, what) {
  if (length < minItems) return fault(path, `Needs at least ${minItems} of these ${what}.`);
  return length > maxItems ? fault(path, `May have ${maxItems} ${what} at most, got ${length}.`) : undefined;
}

function sizeFault({ min_side, max_side, max_pixels }, value, path) {
  const [width, height] = value.split("x").map(Number);
  if (!/^\d+x\d+$/.test(value)) return fault(path, "Give the width and the height in pixels.");
  const sides = [width, height].find(side => side < min_side || side > max_side);
  if (sides !== undefined) return fault(path, `Sides must be from ${min_side} to ${max_side} pixels, got ${sides}.`);
  return width * height > max_pixels ? fault(path, `At most ${max_pixels} pixels in all, got ${width * height}.`) : {};
}

const numbersIn = text => text.split(/[\s,;]+/).filter(Boolean).map(part => (isNaN(part) ? part : Number(part)));

// --- what is sent
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** The record of what differs from the defaults, and the files that it names. */
export function bodyOf(fields, values, basics) {
  const files = {};
  return { record: { ...basics, ...recordOf(fields, values, files) }, files };
}

function recordOf(fields, values, files, at = "") {
  const given = fields.filter(field => values[field.name] !== undefined && applies(field, values));
  const entries = given.map(field => [field.name, valueOf(field, values[field.name], files, at + field.name)]);
  const differing = entries.filter(([, value], place) => value !== undefined && !same(value, given[place].initial));
  return Object.fromEntries(differing.map(([name, value]) => (name === "image_url" ? ["file", value] : [name, value])));
}

function valueOf(field, value, files, path) {
  if (field.kind === "group") return recordOf(field.children, value, files, `${path}_`);
  if (field.kind === "rows") return value.map((row, place) => recordOf(field.children, row, files, `${path}_${place}_`));
  if (field.kind === "numbers") return numbersIn(value);
  if (field.kind === "lines") return value.filter(Boolean);
  if (!FILES.includes(field.kind)) return value;
  files[path] = value;
  return field.name === "image_url" ? path : undefined; // in a list it is named, else its field is its name
}

/** How fetch sends it: as JSON, or with files as a form whose groups and lists are JSON texts. */
export function requestOf({ record, files }) {
  if (Object.keys(files).length === 0) return { body: JSON.stringify(record), headers: { "content-type": "application/json" } };
  const body = new FormData();
  for (const [name, value] of Object.entries(record)) body.append(name, typeof value === "string" ? value : JSON.stringify(value));
  for (const [name, file] of Object.entries(files)) body.append(name, file, file.name);
  return { body, headers: {} };
}

/** What a video says of its settings, as the form's values: those that are not the usual ones. */
export function valuesFrom(video, fields) {
  const plain = fields.filter(({ name, kind }) => video[name] != null && ![...FILES, "rows"].includes(kind));
  return Object.fromEntries(plain.filter(({ name, initial }) => !same(video[name], initial)).map(({ name }) => [name, video[name]]));
}
