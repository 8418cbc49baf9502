// a body -> the same request as curl, as Python with OpenAI's client, as Python with AIPROD's own
import { CopyButton, html, useState } from "./view.js";

const python = value => {
  if (value === null || typeof value === "boolean") return { null: "None", true: "True", false: "False" }[value];
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, inner]) => `${JSON.stringify(name)}: ${python(inner)}`).join(", ")}}`;
};
const quoted = text => `'${text.replaceAll("'", String.raw`'\''`)}'`;
const server = () => new URL(".", document.baseURI).href.replace(/\/$/, "");
const OPENAI = ["prompt", "model", "size"]; // what its client knows by name; the rest travels in extra_body

/** A name for what comes. */
function fileOf({ model, output_format: format, num_frames: frames }) {
  if (model.endsWith("/text_to_audio")) return `sound.${format ?? "m4a"}`;
  return `video.${format ?? (frames === 1 ? "png" : "mp4")}`;
}

function curl({ record, files }) {
  const text = value => (typeof value === "string" ? value : JSON.stringify(value));
  const form = [
    ...Object.entries(record).map(([name, value]) => `-F ${quoted(`${name}=${text(value)}`)}`),
    ...Object.entries(files).map(([name, file]) => `-F ${quoted(`${name}=@${file.name}`)}`),
  ];
  const json = ["-H 'content-type: application/json'", `-d ${quoted(JSON.stringify(record))}`];
  const body = Object.keys(files).length ? form : json;
  const parts = [`curl ${server()}/v1/videos/sync -o ${fileOf(record)}`, '-H "authorization: Bearer $AIPROD_API_KEY"', ...body];
  return `# makes the video, waits for it and saves it\n${parts.join(" \\\n  ")}`;
}

const URLS = { input_reference: "image_url", reference_video: "video_url", sound: "audio_url" };
const dataUrl = file => `data_url(${file ? python(file.name) : '"picture.png"'})`;

/** The record with its files as data URLs, in Python's words. */
function inlined({ record, files }) {
  const others = Object.entries(record).filter(([name]) => !OPENAI.includes(name));
  // A form says groups and lists as JSON.
  const nested = (name, value) => `json.dumps(${name === "keyframes" ? keyframes(value, files) : python(value)})`;
  const lines = others.map(([name, value]) => [name, typeof value === "object" ? nested(name, value) : python(value)]);
  const media = Object.entries(files).filter(([name]) => name in URLS);
  return [...lines, ...media.map(([name, file]) => [name, `{"${URLS[name]}": ${dataUrl(file)}}`])];
}

const keyframes = (rows, files) =>
  `[${rows.map(({ file, ...row }) => `{${python(row).slice(1, -1)}, "image_url": ${dataUrl(files[file])}}`).join(", ")}]`;

const DATA_URL = `
def data_url(path):
    kind = mimetypes.guess_type(path)[0]
    return f"data:{kind};base64," + base64.b64encode(pathlib.Path(path).read_bytes()).decode()

`;

function openai({ record, files }) {
  const extra = inlined({ record, files }), known = OPENAI.filter(name => name in record);
  const lines = known.map(name => `    ${name}=${python(record[name])},`);
  if (extra.length) lines.push("    extra_body={", ...extra.map(([name, value]) => `        "${name}": ${value},`), "    },");
  const withFiles = Object.keys(files).length > 0;
  const nested = extra.some(([, value]) => value.startsWith("json."));
  const imports = [withFiles && "base64", nested && "json", withFiles && "mimetypes", "os", withFiles && "pathlib"].filter(Boolean);
  return `${imports.map(name => `import ${name}\n`).join("")}
from openai import OpenAI
${withFiles ? `\n${DATA_URL}` : ""}
client = OpenAI(base_url="${server()}/v1", api_key=os.environ.get("AIPROD_API_KEY", "none"))
video = client.videos.create_and_poll(
${lines.join("\n")}
)
client.videos.download_content(video.id).write_to_file("${fileOf(record)}")
`;
}

const NATIVE = ["model", "size", "num_frames", "fps", "num_inference_steps", "guidance_scale", "negative_prompt", "seed", "image_strength",
  "reference_strength", "output_format"];

/** A keyframe of the record as AIPROD's client has it. */
const keyframe = ({ file, frame, strength }, files) =>
  `Keyframe(${bytesOf(files[file])}, frame=${frame}${strength === undefined ? "" : `, strength=${strength}`})`;
const bytesOf = file => `Path(${file ? python(file.name) : '"picture.png"'}).read_bytes()`;

function native({ record, files }) {
  const { prompt, loras, keyframes: frames, ...plain } = record, named = NATIVE.filter(name => name in plain);
  const more = Object.fromEntries(Object.entries(plain).filter(([name]) => !NATIVE.includes(name)));
  const settings = [
    ...named.map(name => `${name}=${python(plain[name])}`),
    files.input_reference && `image=${bytesOf(files.input_reference)}`,
    files.reference_video && `reference_video=${bytesOf(files.reference_video)}`,
    files.sound && `sound=${bytesOf(files.sound)}`,
    loras && `loras=${python(Object.fromEntries(loras.map(({ name, scale = 1 }) => [name, scale])))}`,
    frames && `keyframes=(${frames.map(row => `${keyframe(row, files)}, `).join("")})`,
    Object.keys(more).length > 0 && `more=${python(more)}`,
  ].filter(Boolean);
  const paths = Object.keys(files).length ? "from pathlib import Path\n\n" : "";
  return `${paths}from aiprod_client import Client, ${frames ? "Keyframe, " : ""}VideoSettings

settings = VideoSettings(
${settings.map(setting => `    ${setting},`).join("\n")}
)
with Client("${server()}") as client:  # the key is $AIPROD_API_KEY
    video = client.wait(client.create(${python(prompt)}, settings))
    client.download(video, "${fileOf(record)}")
`;
}

const KINDS = { curl: ["curl", curl], openai: ["Python, openai", openai], native: ["Python, aiprod_client", native] };

/** The request of the form in three languages. */
export function Snippets({ body }) {
  const [kind, choose] = useState("curl");
  const text = KINDS[kind][1](body);
  return html`
    <details class="group code">
      <summary><span>Use it from code</span></summary>
      <fieldset class="plain tabs"><legend class="away">Language</legend>
        ${Object.entries(KINDS).map(([name, [label]]) => html`
          <label key=${name} class="tab">
            <input type="radio" name="snippet" checked=${kind === name} onChange=${() => choose(name)} /><span>${label}</span>
          </label>`)}
      </fieldset>
      <pre tabindex="0" aria-label="The request as code"><code>${text}</code></pre>
      <${CopyButton} text=${text} />
    </details>`;
}
