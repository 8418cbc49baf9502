"""figures -> the quality page"""

from collections.abc import Callable
from typing import Any

INTRODUCTION = """# Quality of the miniature

Written by `make quality` from seeds that training never saw, in phrasings that training never used; nothing here is
edited by hand. What a clip shows is read back by the judge (`aiprod_components/miniature/judge.py`), plain image
processing that is itself tested on rendered ground truth. Numbers that fall short of a goal are printed as they are.
"""

FOLLOWING = """One object, plain background, every attribute stated in the prompt. The judge refuses clips that are not clean (a wrong
outline, a shape that changes, a path that wavers): what it still reads of them counts as legible and never as right. All
right means every attribute of a clean clip.

"""
SHARES = ["clips", "attributes legible", "attributes right", "all right"]


def render_page(figures: dict[str, Any], *, sheets: int) -> str:
    parts = [INTRODUCTION, f"All of it was measured on the weights with digest `{figures['weights']}`.\n"]
    parts += [_reconstruction(figures["reconstruction"])] if "reconstruction" in figures else []
    parts += [_following(figures)]
    parts += [_refinement(figures["refinement"])] if "refinement" in figures else []
    parts += [_image(figures["image_to_video"])] if "image_to_video" in figures else []
    parts += [section(figures[name]) for name, section in SECTIONS.items() if name in figures]
    parts += [_languages(figures["languages"])] if "languages" in figures else []
    parts += (
        [_sheets("Contact sheets: the first held-out prompts, nine frames of each", "sheet", count=sheets)] if "english" in figures else []
    )
    parts += [_sheets(title, name, count=2) for name, title in SHEETS.items() if name in figures]
    return "\n".join(parts)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _percents(shares: dict[str, float]) -> list[str]:
    return [_percent(share) for share in shares.values()]


def _shares(f: dict[str, Any]) -> list[str]:
    return [str(f["clips"]), _percent(f["attributes_legible"]), _percent(f["attributes_right"]), _percent(f["all_right"])]


def _reconstruction(figures: dict[str, Any]) -> str:
    rows = [
        [name, str(f["clips"]), f"{f['ssim']:.4f}", f"{f['psnr']:.2f} dB", _percent(f["attributes_right"])] for name, f in figures.items()
    ]
    header = ["clips", "number", "SSIM", "PSNR", "attributes that the judge still sees"]
    return "## VAE reconstruction (goal: SSIM ≥ 0.98)\n\n" + _table(header, rows)


def _following(figures: dict[str, Any]) -> str:
    names = {
        "english": "English, two stages, 30 + 3 steps",
        "unseen_combinations": "shape and colour never rendered together in training",
        "two_objects": "two objects and their relation",
        "patterns": "a pattern behind the object",
        "distilled": "distilled, 8 + 3 steps without guidance",
        "eight_steps": "8 + 3 steps",
        "one_stage": "one stage at 128x128, 30 steps",
    }
    present = {title: figures[name] for name, title in names.items() if name in figures}
    page = "## Prompt following (goal: ≥ 97 % of attributes, ≥ 90 % all right)\n\n" + FOLLOWING
    page += _table(["setting", *SHARES], [[title, *_shares(f)] for title, f in present.items()])
    if "english" in figures:
        of = figures["english"]
        rows = [["legible", *_percents(of["legible_by_attribute"])], ["in clean clips", *_percents(of["by_attribute"])]]
        page += "\n" + _table(["English", *of["by_attribute"]], rows)
        page += f"\nClips that the judge refused as not clean, in English: {sum(figures['english']['refused'].values())}.\n"
    return page


def _refinement(f: dict[str, Any]) -> str:
    return (
        "## Stage 2 earns its place (goal: better on ≥ 90 % of clips)\n\n"
        "A true 64x64 clip is encoded, upsampled, refined and decoded; its rival is the bicubic enlargement of the 64x64 decode; both\n"
        "are compared with the true 128x128 render. Better means a higher PSNR and a higher SSIM.\n\n"
        + _table(
            ["clips", "better", "PSNR", "PSNR of bicubic"],
            [[str(f["clips"]), _percent(f["better_than_bicubic"]), f"{f['psnr']:.2f} dB", f"{f['psnr_bicubic']:.2f} dB"]],
        )
    )


def _image(f: dict[str, Any]) -> str:
    return "## Image to video (goals: ≥ 30 dB, ≥ 90 %)\n\n" + _table(
        ["clips", "PSNR of the first frame against the picture", "motion right"],
        [[str(f["clips"]), f"{f['first_frame_psnr']:.2f} dB", _percent(f["motion_right"])]],
    )


def _languages(figures: dict[str, Any]) -> str:
    rows = [[language, *_shares(f)] for language, f in figures.items()]
    return "## Languages (goal: ≥ 90 % of English)\n\n" + _table(["language", *SHARES], rows)


def _keyframes(f: dict[str, Any]) -> str:
    return "## Keyframes (goal: ≥ 28 dB where they are pinned)\n\n" + _table(
        [
            "clips",
            "PSNR of the first frame",
            "PSNR at frames 16 and 32",
            "lowest of these",
            "PSNR in between",
            "largest step between frames / the truth's, median",
        ],
        [
            [
                str(f["clips"]),
                f"{f['psnr_of_first']:.2f} dB",
                f"{f['psnr_at_keyframes']:.2f} dB",
                f"{f['lowest_at_a_keyframe']:.2f} dB",
                f"{f['psnr_between']:.2f} dB",
                f"{f['largest_step']:.2f}",
            ]
        ],
    )


def _canny(f: dict[str, Any]) -> str:
    return (
        "## Video to video along edges (goal: edge F1 ≥ 0.9)\n\n"
        "Edges of the video against those of the reference, within two pixels; and of the same prompts and seeds without one.\n\n"
        + _table(
            ["clips", "edge F1", "without the reference", "colours legible"],
            [[str(f["clips"]), f"{f['edge_f1']:.3f}", f"{f['edge_f1_without']:.3f}", _percent(f["colours_legible"])]],
        )
    )


def _chained(f: dict[str, Any]) -> str:
    return (
        "## Chained extension\n\n"
        f"Videos of {f['frames']} frames in three chunks: what changes from frame to frame at the two joins, and elsewhere.\n\n"
        + _table(
            ["clips", "both joins below the video's largest other step", "largest join / the video's median step, median"],
            [[str(f["clips"]), _percent(f["joins_within_range"]), f"{f['step_at_joins']:.2f}"]],
        )
    )


def _upsamplers(figures: dict[str, Any]) -> str:
    rows = [
        [name, str(f["clips"]), *(f"{f[name]:.2f} dB" for name in ("psnr", "psnr_ceiling", "psnr_rival"))] for name, f in figures.items()
    ]
    return (
        "## Upsamplers alone\n\nTrue clips, encoded, upsampled and decoded, against the true render. The rival resamples what is decoded\n"
        "at the low size: bicubic in space, the mean of two neighbours in time. The ceiling is the true render, encoded and decoded.\n\n"
        + _table(["network", "clips", "PSNR", "ceiling", "PSNR of the rival"], rows)
    )


def _samplers(f: dict[str, Any]) -> str:
    rows = [
        [title, str(way["network_calls"]), f"{way['error']:.4f}", _percent(way["attributes_legible"]), _percent(way["attributes_right"])]
        for title, way in f["comparison"].items()
    ]
    return (
        "## Samplers\n\n"
        f"Drafts of {f['clips']} prompts from the same noise; the error is the root mean square distance from Heun in 100 steps.\n\n"
        "![error against network calls](quality/sampler_error.png)\n\n![judged against network calls](quality/sampler_judged.png)\n\n"
        + _table(["way", "network calls", "error", "attributes legible", "attributes right"], rows)
    )


def _schedulers(f: dict[str, Any]) -> str:
    rows = [
        [name, steps, f"{way['error']:.4f}", _percent(way["attributes_legible"]), _percent(way["attributes_right"])]
        for name, ways in f["schedulers"].items()
        for steps, way in ways.items()
    ]
    return f"## Schedulers (Euler, {f['clips']} drafts)\n\n" + _table(
        ["scheduler", "steps", "error", "attributes legible", "attributes right"], rows
    )


def _guiders(f: dict[str, Any]) -> str:
    rows = [
        [
            name,
            str(way["network_calls"]),
            _percent(way["attributes_legible"]),
            _percent(way["attributes_right"]),
            f"{way['saturation']:.2f}",
        ]
        for name, way in f["settings"].items()
    ]
    return f"## Guidance ({f['clips']} drafts, {f['steps']} steps)\n\n" + _table(
        ["guidance", "network calls", "attributes legible", "attributes right", "saturation / the truth's"], rows
    )


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "keyframes": _keyframes,
    "canny": _canny,
    "chained": _chained,
    "samplers": _samplers,
    "schedulers": _schedulers,
    "guiders": _guiders,
    "upsamplers": _upsamplers,
}
SHEETS = {
    "two_objects": "Contact sheets: two objects",
    "patterns": "Contact sheets: patterns",
    "distilled": "Contact sheets: distilled",
    "keyframes": "Contact sheets: keyframes at frames 0, 16 and 32",
    "canny": "Contact sheets: along the edges of a reference",
    "chained": "Contact sheets: three chunks",
}


def _sheets(title: str, name: str, *, count: int) -> str:
    pictures = [f"![{title}, {number}](quality/{name}_{number}.png)\n" for number in range(1, count + 1)]
    return f"## {title}\n\n" + "\n".join(pictures)
