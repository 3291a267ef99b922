"""Pictures and sounds as the model takes them: conversations about a scene, patches, features and placeholders.

For training pictures are resized by Pillow and cut here, which is the reference's processor but for its batching; scoring
goes through the processor itself (`score.py`).
"""

import numpy as np
import torch
from PIL import Image
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

import pictures
import sounds
from world import SYSTEM_TEXTS

IMAGE_TOKENS, PATCH, POOL = 70, 16, 3
FRAMES_STEP = 128
"""Sounds of a batch are padded to multiples of so many frames: a GPU's convolutions are planned anew for every length."""
MOST_PATCHES = IMAGE_TOKENS * POOL ** 2
MOST_HIDDEN_BANDS = 14
"""That `other_speaker` takes from a sound at a place, of 128."""
OPEN_IMAGE, IMAGE, CLOSE_IMAGE = 5, 7, 6
OPEN_AUDIO, AUDIO, CLOSE_AUDIO = 8, 10, 9
SKILLS = [*pictures.SCENES, *sounds.SCENES]
ORDERS = ("Count", "Describe", "Name", "Read", "Tell", "Transcribe", "Write")
EXTRACTOR = Gemma4AudioFeatureExtractor()


def kind_of(skill):
    """The type of a message's part that shows the medium."""
    return "image" if skill in pictures.SCENES else "audio"


def make_media_example(skill, draw):
    """A conversation about a picture or sound, in the form of `world.make_example`, with the scene's `medium`.

    In training more may be asked about the same scene: the first answer is always one to the skill's question.
    """
    world = pictures if skill in pictures.SCENES else sounds
    while True:
        scene = world.make_scene(skill, draw)
        if skill in scene.questions:
            break
    asked = [skill]
    if not draw.held_out and draw.chance(0.6):
        asked += draw.sample(sorted(set(scene.questions) - {skill}), min(len(scene.questions) - 1, draw.number(1, 3)))
    messages = []
    for name in asked:
        known, unseen, answer = scene.questions[name]
        question = draw.wording(known, unseen)
        if question.split()[0] in ORDERS and draw.chance(0.25):
            question = f"Please {question[0].lower()}{question[1:]}"
        if draw.chance(0.1):
            question = question.lower().rstrip(".?")
        content = question if messages else [{"type": kind_of(skill)}, {"type": "text", "text": question}]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    answer = messages.pop()
    if draw.chance(0.04):
        messages.insert(0, {"role": "system", "content": draw.choice(SYSTEM_TEXTS)})
    return {"skill": skill, "messages": messages, "tools": [], "enable_thinking": False, "answer": {"content": answer["content"]},
            "medium": scene.picture if world is pictures else scene.sound}


def picture_patches(picture):
    """`[MOST_PATCHES, 768]` bytes, the (x, y) of each or -1, and the number of soft tokens."""
    height, width = get_aspect_ratio_preserving_size(picture.height, picture.width, PATCH, MOST_PATCHES, POOL)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    rows, columns = height // PATCH, width // PATCH
    patches = np.zeros((MOST_PATCHES, PATCH * PATCH * 3), np.uint8)
    positions = np.full((MOST_PATCHES, 2), -1, np.int16)
    count = rows * columns
    patches[:count] = pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(count, -1)
    positions[:count] = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(count, 2)
    return patches, positions, count // POOL ** 2


def soft_tokens_of_sound(mask):
    """How many soft tokens frames with this mask become: they are halved twice."""
    for _ in range(2):
        mask = mask[::2]
    return int(mask.sum())


def expand(ids, count):
    """Token ids with the one placeholder in them replaced by its opening, `count` placeholders, and its closing."""
    for placeholder, opening, closing in ((IMAGE, OPEN_IMAGE, CLOSE_IMAGE), (AUDIO, OPEN_AUDIO, CLOSE_AUDIO)):
        if placeholder in ids:
            place = ids.index(placeholder)
            return ids[:place] + [opening] + [placeholder] * count + [closing] + ids[place + 1:]
    return ids


def other_speaker(features, rng):
    """Log-mel features `[frames, bands]` as another voice could have made them: another length of the vocal tract (bands shrink or
    widen, Jaitly & Hinton 2013), the time in it bent but not its whole, and two ranges of bands at their mean (Park et al. 2019)."""
    frames, bands = features.shape
    bends = np.cumsum(rng.uniform(.7, 1.3, 5))
    times = np.interp(np.linspace(0, bends[-1], frames), [0, *bends], np.linspace(0, frames - 1, 6))
    places = np.minimum(np.arange(bands) * rng.uniform(.9, 1.12), bands - 1)
    for axis, at in enumerate((times, places)):
        below = np.minimum(at.astype(int), features.shape[axis] - 2)
        part = (at - below).astype(np.float32)
        part = part[:, None] if axis == 0 else part
        features = features.take(below, axis) * (1 - part) + features.take(below + 1, axis) * part
    for _ in range(2):
        first, count = rng.integers(0, bands), rng.integers(0, MOST_HIDDEN_BANDS)
        features[:, first:first + count] = features.mean()
    return features


def inputs_of(media, rng=None):
    """The model's further inputs for these pictures and sounds, in order, and the number of soft tokens of each.

    With `rng` of NumPy, for training, half of the sounds are changed by `other_speaker`.
    """
    inputs, counts = {}, [0] * len(media)
    shown = [index for index, medium in enumerate(media) if isinstance(medium, Image.Image)]
    heard = [index for index, medium in enumerate(media) if isinstance(medium, np.ndarray)]
    if shown:
        patches, positions, tokens = zip(*(picture_patches(media[index]) for index in shown))
        inputs["pixel_values"] = torch.from_numpy(np.stack(patches))
        inputs["image_position_ids"] = torch.from_numpy(np.stack(positions))
        for index, count in zip(shown, tokens):
            counts[index] = count
    if heard:
        features = EXTRACTOR([media[index] for index in heard], return_tensors="np")
        for sound, mask in zip(features["input_features"], features["input_features_mask"]) if rng is not None else ():
            if rng.random() < 0.5:
                sound[:mask.sum()] = other_speaker(sound[:mask.sum()], rng)
        missing = -features["input_features"].shape[1] % FRAMES_STEP
        inputs["input_features"] = torch.from_numpy(
            np.pad(np.asarray(features["input_features"], np.float32), ((0, 0), (0, missing), (0, 0))))
        inputs["input_features_mask"] = torch.from_numpy(np.pad(features["input_features_mask"], ((0, 0), (0, missing))))
        for index, mask in zip(heard, features["input_features_mask"]):
            counts[index] = soft_tokens_of_sound(mask)
    return inputs, counts


def on_device(inputs, device):
    """Inputs as the model takes them: pixels from 0 to 1, positions as long integers."""
    inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].float() / 255
        inputs["image_position_ids"] = inputs["image_position_ids"].long()
    return inputs
