"""The world of sounds: spoken digits and words, tones and noises, and questions about them with one right answer.

Words come from a bank that `voices.py` makes; everything else is computed here. Speed, pitch, loudness, noise, rooms and
bandwidth vary. Never in training: the voices that the bank holds out, one in ten strings of digits or words (by a hash).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE = 16000
DIGITS = "zero one two three four five six seven eight nine".split()
COLOURS = "red green blue yellow black white orange purple".split()
SHAPES = "circle square triangle star".split()
OTHER_WORDS = "yes no stop go left right up down hello goodbye".split()
WORDS = COLOURS + SHAPES + OTHER_WORDS


@dataclass
class Scene:
    """A sound, samples of f32 at 16 kHz, and per skill what may be asked about it: (known wordings, unseen ones, answer)."""

    sound: np.ndarray
    questions: dict


class Bank:
    """Recorded words by voice, `clips[voice][word]` as int16; the voices of both sides of the split."""

    def __init__(self, folder):
        import soundfile
        self.clips, self.sides, self.names = [], {False: [], True: []}, []
        for path in sorted(Path(folder).rglob("index.json")):
            index = json.loads(path.read_text())
            for voice in index["voices"]:
                samples, rate = soundfile.read(path.parent / voice["file"], dtype="int16")
                assert rate == RATE, (voice, rate)
                self.sides[voice["held_out"]].append(len(self.clips))
                self.names.append(voice["voice"])
                self.clips.append({word: samples[start:end] for word, (start, end) in zip(index["words"], voice["spans"])})
        assert all(self.sides.values()), f"no voices in {folder}"

    def draw(self, draw):
        """A voice: synthesisers first, so that the many voices of one don't hide another's few."""
        voices = self.sides[draw.held_out]
        makers = sorted({self.maker(voice) for voice in voices})
        shares = [{"espeak": 3, "flite": 2.5, "kokoro": 3, "piper": 1, "festival": 1}.get(maker, 1) for maker in makers]
        maker = draw.rng.choices(makers, shares)[0]
        return self.clips[draw.choice([voice for voice in voices if self.maker(voice) == maker])]

    def maker(self, voice):
        return self.names[voice].split()[0]


BANK = None


def use_bank(folder):
    global BANK
    BANK = Bank(folder)


# --- speech ------------------------------------------------------------------------------------

def say(draw, words):
    """Words in one voice, with pauses."""
    clips, speed, parts = BANK.draw(draw), draw.rng.uniform(.84, 1.2), []
    pause = draw.choice([.04, .1, .25] if draw.held_out else [0, .04, .1, .25, .45])
    for word in words:
        clip = clips[word].astype(np.float32) / 32768 * draw.rng.uniform(.6, 1)
        places = np.arange(0, len(clip) - 1, speed * draw.rng.uniform(.96, 1.04))
        parts += [np.interp(places, np.arange(len(clip)), clip), np.zeros(round(draw.rng.uniform(.5, 1.5) * pause * RATE))]
    return np.concatenate(parts[:-1])


def worsen(draw, samples):
    """What rooms, microphones and lines do, at a loudness drawn at random; some silence before and after."""
    noise_of = np.random.default_rng(draw.rng.getrandbits(32))
    samples = np.concatenate([np.zeros(round(draw.rng.uniform(.02, .35) * RATE)), samples, np.zeros(round(draw.rng.uniform(.05, .3) * RATE))])
    n = 1 << (len(samples) + RATE // 4).bit_length()
    spectrum, frequencies = np.fft.rfft(samples, n), np.fft.rfftfreq(n, 1 / RATE)
    if draw.chance(0.5):
        # A smooth curve of gains for the microphone.
        bends = noise_of.uniform(-7, 7, 7)
        spectrum *= 10 ** (np.interp(np.log2(frequencies + 60), np.linspace(5.9, 13, 7), bends) / 20)
    if draw.chance(0.35):
        spectrum *= 1 / (1 + (frequencies / draw.rng.uniform(3000, 7000)) ** 16)
    if draw.chance(0.35):
        spectrum *= 1 / (1 + (draw.rng.uniform(80, 350) / (frequencies + 1)) ** 6)
    if draw.chance(0.3):
        tail = noise_of.standard_normal(round(draw.rng.uniform(.05, .25) * RATE))
        tail *= np.exp(-np.linspace(0, 6, len(tail))) * draw.rng.uniform(.02, .12)
        tail[0] = 1
        spectrum *= np.fft.rfft(tail, n)
    samples = np.fft.irfft(spectrum, n)[:len(samples)]
    samples = samples / (np.abs(samples).max() + 1e-9) * 10 ** draw.rng.uniform(-1.4, -.05)
    if draw.chance(0.65):
        noise = noise_of.standard_normal(len(samples))
        if draw.chance(0.5):
            noise = np.convolve(noise, np.ones(draw.number(2, 12)) / 4, "same")
        samples = samples + noise * np.sqrt((samples ** 2).mean() / (noise ** 2).mean()) * 10 ** (-draw.rng.uniform(10, 45) / 20)
    return np.clip(samples, -1, 1).astype(np.float32)


def owned(draw, make):
    while True:
        words = make()
        if len(words) == 1 or draw.owns("spoken " + " ".join(words)):
            return words


DIGIT = ("Which digit is it?|What digit do you hear?|Which digit do you hear?|Which number do you hear?|What number is it?|"
         "Name the digit.|Which digit is spoken?|Transcribe the digit.|What digit is this?|Which number is spoken?",
         "Which digit is this?|What number do you hear?|What digit is it?")
DIGIT_STRING = ("Which digits do you hear?|Transcribe the digits.|What digits are these?|Name the digits.|Write down the digits.|"
                "Which digits are spoken?|What are the digits?|Which digits are these?|Write the digits.",
                "What digits do you hear?|Can you transcribe the digits?|Which digits are they?")
WORD = ("Which word do you hear?|What word is it?|Which word is it?|What is the word?|Which word is spoken?|Name the word.|"
        "What word do you hear?|Write down the word.|Which word is this?", "What word is this?|What word is spoken?|Write the word.")
SPEECH = ("Transcribe the speech.|Transcribe this.|What is said?|Write down what you hear.|What does the voice say?|"
          "Transcribe the audio.|What is spoken?|What are the words?|Which words do you hear?|Transcribe the words.|Transcribe.",
          "Can you transcribe this?|What words do you hear?|Write down the words.")
SOUND = ("What do you hear?|Which sound is it?|What sound is this?|What is this sound?|Name the sound.|Describe the sound.|"
         "What kind of sound is it?|What can you hear?|Which sound do you hear?|Tell me what you hear.|What is it?",
         "Which sound is this?|What sound do you hear?|Describe what you hear.")
BEEPS = ("How many beeps do you hear?|Count the beeps.|How many beeps are there?|How many beeps?|What is the number of beeps?|"
         "How many tones do you hear?", "Can you count the beeps?|How many beeps can you hear?")


def spoken_digit(draw):
    word = draw.choice(DIGITS)
    return Scene(worsen(draw, say(draw, [word])), {"spoken digit": (*DIGIT, str(DIGITS.index(word)))})


def spoken_digits(draw):
    words = owned(draw, lambda: [draw.choice(DIGITS) for _ in range(draw.number(2, 4 if draw.held_out else 6))])
    return Scene(worsen(draw, say(draw, words)), {"spoken digits": (*DIGIT_STRING, " ".join(str(DIGITS.index(word)) for word in words))})


def spoken_word(draw):
    word = draw.choice(WORDS)
    return Scene(worsen(draw, say(draw, [word])), {"spoken word": (*WORD, word)})


def spoken_phrase(draw):
    def make():
        if draw.chance(0.4):
            return [draw.choice(COLOURS), draw.choice(SHAPES)]
        return [draw.choice(WORDS if draw.chance(0.7) else DIGITS) for _ in range(draw.number(2, 3 if draw.held_out else 5))]
    words = owned(draw, make)
    return Scene(worsen(draw, say(draw, words)), {"spoken phrase": (*SPEECH, " ".join(words))})


# --- other sounds ------------------------------------------------------------------------------

def sweep(draw, start, end, seconds):
    """A tone that goes evenly, in octaves, from one frequency to another."""
    t = np.linspace(0, 1, round(seconds * RATE))
    phase = 2 * np.pi * np.cumsum(start * (end / start) ** t) / RATE
    overtones = [1, draw.rng.uniform(0, .5), draw.rng.uniform(0, .3)] if draw.chance(0.5) else [1]
    wave = sum(share * np.sin((k + 1) * phase) for k, share in enumerate(overtones))
    fade = min(len(t) // 2, round(draw.rng.uniform(.005, .05) * RATE))
    wave[:fade] *= np.linspace(0, 1, fade)
    wave[-fade:] *= np.linspace(1, 0, fade)
    return wave


def tone(draw):
    seconds, low = draw.rng.uniform(.4, 1.3), draw.rng.uniform(200, 900)
    high = low * draw.rng.uniform(1.7, 3.5)
    name = draw.choice(["rising", "falling", "steady"])
    start, end = {"rising": (low, high), "falling": (high, low), "steady": (low, low)}[name]
    return f"A {name} tone.", sweep(draw, start, end, seconds)


def siren(draw):
    low, turns, half = draw.rng.uniform(350, 700), draw.number(2, 4), draw.rng.uniform(.15, .32)
    high = low * draw.rng.uniform(1.4, 2)
    t = np.arange(round(2 * turns * half * RATE)) / RATE
    swing = (1 - np.cos(np.pi * t / half)) / 2
    return "A siren.", np.sin(2 * np.pi * np.cumsum(low + (high - low) * swing) / RATE)


def noise(draw):
    samples = np.random.default_rng(draw.rng.getrandbits(32)).standard_normal(round(draw.rng.uniform(.4, 1.3) * RATE))
    if draw.chance(0.6):
        samples = np.convolve(samples, np.ones(draw.number(2, 10)), "same")
    return "Noise.", samples


def clicks(draw):
    period, number = draw.rng.uniform(.06, .16), draw.number(6, 12)
    samples = np.zeros(round(period * number * RATE) + 400)
    length = draw.number(20, 120)
    click = np.exp(-np.linspace(0, 5, length)) * np.cos(np.arange(length) * draw.rng.uniform(.4, 2.2))
    for k in range(number):
        start = round(k * period * RATE)
        samples[start:start + length] += click
    return "Clicks.", samples


def bell(draw):
    t = np.arange(round(draw.rng.uniform(.7, 1.4) * RATE)) / RATE
    base = draw.rng.uniform(350, 1100)
    parts = [(1, 1, 3), (2.0, .6, 4), (2.76, .5, 5), (4.07, .3, 7), (5.4, .25, 9)]
    return "A bell.", sum(share * np.sin(2 * np.pi * base * ratio * t) * np.exp(-decay * t) for ratio, share, decay in parts if base * ratio < 7500)


def voice(draw):
    return "A voice.", say(draw, [draw.choice(WORDS + DIGITS) for _ in range(draw.number(1, 2))])


def other_sound(draw):
    name, samples = draw.choice([tone, tone, tone, siren, noise, clicks, bell, voice])(draw)
    return Scene(worsen(draw, samples / (np.abs(samples).max() + 1e-9)), {"sound": (*SOUND, name)})


def beeps(draw):
    number, long, gap = draw.number(1, 5), draw.rng.uniform(.08, .22), draw.rng.uniform(.1, .25)
    pitch = draw.rng.uniform(350, 1500)
    parts = []
    for _ in range(number):
        parts += [sweep(draw, pitch, pitch, long), np.zeros(round(gap * RATE))]
    count = "I hear 1 beep." if number == 1 else f"I hear {number} beeps."
    return Scene(worsen(draw, np.concatenate(parts[:-1])), {"beeps": (*BEEPS, count)})


SCENES = {"spoken digit": spoken_digit, "spoken digits": spoken_digits, "spoken word": spoken_word, "spoken phrase": spoken_phrase,
          "sound": other_sound, "beeps": beeps}
WEIGHTS = {"spoken digit": 1.2, "spoken digits": 2.0, "spoken word": 1.4, "spoken phrase": 2.6, "sound": 1.1, "beeps": 0.7}


def make_scene(skill, draw):
    return SCENES[skill](draw)
