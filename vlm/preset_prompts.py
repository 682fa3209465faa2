"""Preset prompts: what is most often asked of a vision-language model, ready to choose by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..defaults import NO_PRESET as NONE

PRESETS: Mapping[str, str] = MappingProxyType(
    {
        NONE: "",
        "Detailed description": (
            "Describe this image in detail, so that someone who cannot see it could picture it. "
            "Begin with the main subject and what it does, go on to the people and objects around "
            "it, their looks, colours, materials and positions, then to the setting, the light and "
            "the mood. Say what kind of picture it is, such as a photograph or a drawing. Quote "
            "any text that can be read. State only what is visible; do not guess names, and do "
            "not invent a story."
        ),
        "Short caption": (
            "Write one caption of at most twenty words for this image. Name the main subject, what "
            "it does and where, in a plain English sentence. Answer with the caption only, and do "
            'not begin with "This image" or "A picture of".'
        ),
        "Tags": (
            "List tags for this image, in English and lower case, separated by commas, on one "
            "line. Begin with the subject, then give its looks, clothing and action, the objects, "
            "the setting, the light, the colours, the framing and the style. Give 15 to 40 tags of "
            "one to three words each, each only once, and only for what can be seen. Answer with "
            "the tags only."
        ),
        "Z-Image prompt": (
            "Write a prompt from which an image generator that reads plain English could make this "
            "image anew. Write one paragraph of 80 to 200 words in full sentences, without lists, "
            "tags or weights. Say in this order: the subject with its looks, clothing, pose and "
            "expression; the setting; the composition with framing, point of view and what stands "
            "where; the light and its direction; the colours; the style or medium, for photographs "
            "also lens and depth of field. If there is text in the image, give it exactly, in "
            "double quotation marks, with its place and lettering. Write of what is there, never "
            "of what is missing. Answer with the prompt only."
        ),
        "Qwen-Image edit instruction": (
            "Write an instruction for an image editing model that is shown the same image or "
            "images. If a change is asked for below, turn it into one clear instruction of at most "
            "three sentences; otherwise propose one change that would improve the image. Begin "
            "with a verb. Name what is to be changed by its looks and place, say exactly what it "
            "becomes, and say what has to stay as it is, such as faces, pose, background or "
            'framing. With several images, call them "image 1", "image 2" and so on. Put text that '
            "is to appear into double quotation marks, letter for letter. Answer with the "
            "instruction only."
        ),
        "Read the text (OCR)": (
            "Write down all text in this image exactly as it stands, in its own language, with its "
            "spelling, capitals, punctuation and line breaks. Go in reading order, column by "
            "column. Write tables as Markdown tables and formulas as LaTeX. Put [illegible] where "
            "a word cannot be made out; do not guess, correct or translate. If there is no text, "
            "answer: No text. Answer with the text only."
        ),
        "Compare the images": (
            "Compare these images. Say first, in one sentence, what they have in common. Then list "
            "the differences, the most important first: subjects, positions, details, colours, "
            "light, text, quality and style. For each, say what is seen in which image, and call "
            "them image 1, image 2 and so on, in the order in which they are given. State only "
            "what is visible; if you find no difference, say so."
        ),
        "Describe the video": (
            "Describe this video in the order of time. Say who or what is seen and where, what "
            "happens and how it moves from beginning to end, and where a new scene begins. Mention "
            "the camera, whether it stands still, pans, zooms or follows, as well as the light and "
            "the style. Quote text that can be read. Describe the course of events as a whole, not "
            "frame by frame, and state only what is visible."
        ),
        "Improve my prompt": (
            "Expand the short prompt below into a full prompt for an image generator that reads "
            "plain English. Keep everything that it asks for, names, numbers and quoted text "
            "letter for letter, and contradict none of it. Add what it leaves open: looks, pose, "
            "setting, composition, light, colours and style, all fitting together. Write one "
            "paragraph of 80 to 200 words in full sentences, without lists, tags or weights. Write "
            "it in English, but leave text that is to appear in the image in its own language, in "
            "double quotation marks. Do not answer or follow the prompt; rewrite it. Answer with "
            "the new prompt only.\n\nThe prompt:"
        ),
    }
)

# These work on the user's own prompt, and are of no use without it.
NEEDS_OWN_PROMPT = frozenset({"Improve my prompt"})


def instruction(preset: str, own: str) -> str:
    """Join a preset and the user's own prompt, which follows after a blank line.

    Args:
        preset: a name of `PRESETS`.
        own: may be empty where the preset says what to do; white space around it does not count.

    Raises:
        ValueError: there is no such preset, or nothing is asked.
    """
    if preset not in PRESETS:
        names = ", ".join(f"'{name}'" for name in PRESETS)
        raise ValueError(f"There is no preset prompt {preset!r}. Choose one of {names}")
    text, own = PRESETS[preset], own.strip()
    if not own and not text:
        raise ValueError("The prompt is empty. Write one, or choose a preset prompt")
    if not own and preset in NEEDS_OWN_PROMPT:
        raise ValueError(f"'{preset}' needs a prompt of yours to work on. Write a short one")
    return "\n\n".join(part for part in (text, own) if part)
