"""The world of pictures: coloured shapes, printed words and numbers, and questions about them with one right answer.

A scene is a picture and everything that may be asked about it. Sizes, aspect ratios, backgrounds, fonts and noise vary; the
pictures are small, as the model's processor enlarges them to its budget of soft tokens anyway.

Never in training: one in ten pairs of colour and shape, printed words and numbers (by a hash, as in `world.py`), and the fonts
of `HELD_OUT_FONTS`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from words import CITIES, NAMES, WORDS

COLOURS = {
    "red": (215, 40, 40), "green": (45, 160, 60), "blue": (40, 80, 210), "yellow": (242, 216, 50), "black": (20, 20, 20),
    "white": (246, 246, 246), "orange": (245, 138, 28), "purple": (138, 50, 168),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
GROUNDS = tuple(COLOURS.values()) + ((128, 128, 128), (200, 200, 200), (70, 70, 70), (225, 215, 190), (190, 220, 240), (240, 200, 210))
LEAST_CONTRAST = 110
"""Between a shape and what is behind it, as a distance of colours."""
ASPECTS = (1, 1, 1, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16, 2, 1 / 2)
FONTS = (
    "DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSansMono DejaVuSansMono-Bold DejaVuSerif DejaVuSerif-Bold "
    "DejaVuSansCondensed DejaVuSerif-Italic LiberationSans-Regular LiberationSans-Bold LiberationSans-Italic "
    "LiberationSerif-Regular LiberationSerif-Bold LiberationSerif-Italic LiberationMono-Regular LiberationMono-Bold "
    "LiberationSansNarrow-Regular LiberationSansNarrow-Bold Lato-Regular Lato-Bold Lato-Black Lato-Light Lato-Italic "
    "OpenSans-Regular OpenSans-Bold OpenSans-CondBold OpenSans-Light FiraCode-Regular FiraCode-Bold Hack-Regular Hack-Bold "
    "Quicksand-Regular Quicksand-Bold Comfortaa-Regular Caladea-Regular Caladea-Bold Caladea-Italic FreeMonoBold "
    "Roboto-Regular Roboto-Bold Roboto-Light Roboto-Italic RobotoCondensed-Regular RobotoCondensed-Bold Cantarell-Regular "
    "Cantarell-Bold Play-Regular Play-Bold Jura-Medium Jura-Bold LinLibertine_R LinLibertine_RB LinLibertine_RI LinBiolinum_R "
    "LinBiolinum_RB Gentium-R GenBasB Cabin-Regular Cabin-Bold Cabin-Italic Vollkorn-Regular Vollkorn-Bold EBGaramond12-Regular "
    "EBGaramond12-Italic EBGaramond12-Bold LeagueSpartan-Medium Dosis-Medium Dosis-Bold C059-Roman C059-Bold C059-Italic P052-Roman "
    "P052-Bold P052-Italic URWGothic-Book URWGothic-Demi URWBookman-Light URWBookman-Demi cmunrm cmunbx cmunti cmunss cmunsx cmuntt "
    "Hermit-medium Oxygen-Sans Oxygen-Sans-Bold OxygenMono-Regular Tuffy Tuffy_Bold ComicNeue-Regular ComicNeue-Bold ComicNeue-Italic "
    "JetBrainsMono-Regular JetBrainsMono-Bold Inter-Regular Inter-Bold Inter-Italic Sora-Regular Sora-Bold YanoneKaffeesatz-Regular "
    "YanoneKaffeesatz-Bold Go-Regular Go-Bold Go-Mono mononoki-Regular monof55 Prociono LindenHill FanwoodText GoudyBookletter1911 "
    "GilliusADF-Regular GilliusADF-Bold UniversalisADFStd-Regular UniversalisADFStd-Bold LibrisADFStd-Regular LibrisADFStd-Bold "
    "BaskervaldADFStd BaskervaldADFStd-Bold AccanthisADFStd-Regular RomandeADFStd-Regular BerenisADFPro-Regular TribunADFStd-Regular "
    "TribunADFStd-Bold B612-Regular B612-Bold B612Mono-Regular Rasa-Regular Rasa-Bold Yrsa-Medium Quicksand-Medium NotoMono-Regular "
    "Cousine-Regular Cousine-Bold OpenDyslexic-Regular FreeMono JunicodeTwoBeta-Bold").split()
HELD_OUT_FONTS = "Carlito-Regular Carlito-Bold FreeSans FreeSansBold FreeSerif FreeSerifBold Inconsolata Arimo-Italic Tinos-Regular".split()


@dataclass
class Scene:
    """A picture, and per skill what may be asked about it: (known wordings, unseen wordings, answer)."""

    picture: Image.Image
    questions: dict


def find_fonts(folder=Path("/usr/share/fonts")):
    """Paths of the fonts of both lists by their names; those not installed are left out."""
    wanted = {*FONTS, *HELD_OUT_FONTS}
    return {path.stem: path for path in sorted(folder.rglob("*.[ot]tf")) if path.stem in wanted}


class Fonts:
    """Fonts of one side of the split, opened once per size."""

    def __init__(self, folder=Path("/usr/share/fonts")):
        self.paths, self.open = find_fonts(folder), {}

    def draw(self, draw, size):
        names = [name for name in (HELD_OUT_FONTS if draw.held_out else FONTS) if name in self.paths]
        assert names, "no fonts found"
        key = draw.choice(names), size
        if key not in self.open:
            self.open[key] = ImageFont.truetype(str(self.paths[key[0]]), size)
        return self.open[key]


FONTS_FOUND = Fonts()


def use_fonts(folder):
    """Takes the fonts of another folder than Debian's."""
    global FONTS_FOUND
    FONTS_FOUND = Fonts(Path(folder))


# --- drawing -----------------------------------------------------------------------------------

def outline(shape, x, y, radius, angle):
    """Corners of a shape around (x, y)."""
    if shape == "square":
        points = [(-.85, -.85), (.85, -.85), (.85, .85), (-.85, .85)]
    elif shape == "triangle":
        points = [(0, -1), (.95, .75), (-.95, .75)]
    elif shape == "star":
        points = [((1 if i % 2 == 0 else .42) * math.sin(i * math.pi / 5), -(1 if i % 2 == 0 else .42) * math.cos(i * math.pi / 5))
                  for i in range(10)]
    elif shape == "cross":
        a = .34
        points = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    else:
        points = [(.95 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15)
                  for t in np.linspace(0, 2 * math.pi, 40)]
    c, s = math.cos(angle), math.sin(angle)
    return [(x + radius * (c * px - s * py), y + radius * (s * px + c * py)) for px, py in points]


def tint(draw, colour):
    return tuple(min(255, max(0, value + draw.number(-18, 18))) for value in colour)


def ground(draw, size, *colours):
    """An empty picture on which all of `colours` can be seen: plain, or running from one tint to another."""
    good = [one for one in GROUNDS if all(math.dist(one, other) > LEAST_CONTRAST for other in colours)]
    first = draw.choice(good)
    if draw.chance(0.8):
        return Image.new("RGB", size, tint(draw, first))
    ends = np.array([tint(draw, first), tint(draw, first)], np.float32)
    steps = np.linspace(0, 1, size[0] if draw.chance(0.5) else size[1])[:, None]
    line = ends[0] * (1 - steps) + ends[1] * steps
    across = len(line) == size[0]
    return Image.fromarray(np.broadcast_to(line[None] if across else line[:, None], (size[1], size[0], 3)).astype(np.uint8))


def paint(draw, picture, colour, shape, x, y, radius):
    pen = ImageDraw.Draw(picture)
    fill = tint(draw, COLOURS[colour])
    if shape == "circle":
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
    else:
        turn = {"star": math.pi, "heart": .25}.get(shape, .2)
        pen.polygon(outline(shape, x, y, radius, (draw.rng.random() * 2 - 1) * turn), fill=fill)


def finish(draw, picture, scale):
    """Half of the pictures lose their jagged edges, many get noise, and some turn softer."""
    if scale > 1:
        picture = picture.reduce(scale)
    if draw.chance(0.4):
        noise = np.random.default_rng(draw.rng.getrandbits(32)).integers(-14, 15, (picture.height, picture.width, 3), np.int16)
        picture = Image.fromarray(np.clip(np.asarray(picture, np.int16) + noise * draw.number(1, 2) // 2, 0, 255).astype(np.uint8))
    return picture


def canvas(draw):
    """Width and height to draw at, and by how much to reduce what was drawn."""
    scale, short, aspect = draw.choice([1, 2]), draw.number(72, 200), draw.choice(ASPECTS)
    width, height = (short * aspect, short) if aspect > 1 else (short, short / aspect)
    return round(width) * scale, round(height) * scale, scale


def kind(draw):
    """A colour and a shape."""
    while True:
        colour, shape = draw.choice(COLOURS), draw.choice(SHAPES)
        if draw.held_out or draw.owns(f"{colour} {shape}"):
            return colour, shape


# --- scenes ------------------------------------------------------------------------------------

WHAT = ("What is in the picture?|What is this?|What do you see?|What is it?|Describe the picture.|Describe this.|What can you see?|"
        "What is in this image?|What does the picture show?|What is shown here?|Tell me what you see.|Name the object.|Describe the image.",
        "Describe what you see.|What is in the image?|What does this picture show?")
SHAPE = ("What shape is it?|Which shape is it?|What is the shape?|Name the shape.|Which shape is this?|What shape do you see?|shape?|"
         "Tell me the shape.|What shape is in the picture?", "What shape is this?|Which shape do you see?")
COLOUR = ("What colour is it?|Which colour is it?|What colour is the shape?|What color is it?|Name the colour.|colour?|"
          "Which colour is the shape?|What is the colour of the shape?|Tell me the colour.|Which color is it?",
          "What colour is this?|What is the colour?")
COUNT = ("How many shapes are there?|How many shapes are in this image?|How many shapes can you see?|How many shapes are shown?|"
         "How many shapes do you see in the picture?|Count all shapes.|How many shapes do you see?|Count the shapes.|"
         "How many are there?|How many shapes?|How many objects are there?|How many things are in the picture?|"
         "How many shapes does the picture show?|What is the number of shapes?|Tell me how many shapes there are.",
         "How many shapes are in the picture?|Can you count the shapes?")
COUNT_KIND = ("How many {0} are there?|How many {0} are in this image?|How many {0} can you see?|How many {0} are shown?|"
              "How many {0} do you see in the picture?|Count all {0}.|How many {0} do you see?|Count the {0}.|How many {0}?|"
              "How many {0} does the picture show?|What is the number of {0}?|Tell me how many {0} there are.",
              "How many {0} are in the picture?|Can you count the {0}?")
PRESENT = ("Is there a {0}?|Do you see a {0}?|Is a {0} in the picture?|Can you see a {0}?|Is there a {0} here?|Is there a {0} in this image?|"
           "Does the picture show a {0}?", "Is there a {0} in the picture?|Is a {0} there?")
WHERE = ("What is {0}?|What do you see {0}?|Which shape is {0}?|Name the shape {0}.|What is {0} of the picture?",
         "What can you see {0}?|Tell me what is {0}.")
SIDES = (("on the left", "on the right"), ("at the top", "at the bottom"))
READ = ("Read the word.|What does it say?|Which word is it?|Read this.|Read the text.|What is written here?|What word is this?|"
        "Which word do you see?|Transcribe the text.|What does the picture say?|Can you read this?|What is the word?",
        "What word is it?|Can you read the word?|Read it.")
READ_NUMBER = ("Read the number.|Which number is it?|What number is this?|What is the number?|Which number do you see?|"
               "What number do you see?|Transcribe the number.|Which digits are these?|What number is shown?|Which number is shown?",
               "What number is it?|Can you read the number?")


def plural(noun):
    return noun + ("es" if noun.endswith("s") else "s")


def counted(number, noun):
    return f"There is 1 {noun}." if number == 1 else f"There are {number or 'no'} {plural(noun)}."


def filled(wordings, *values):
    return tuple(text.format(*values).replace(" a orange", " an orange") for text in wordings)


def presence(draw, shown):
    """Whether a shape, or a colour and shape, is among those shown."""
    colour, shape = draw.choice(shown) if draw.chance(0.5) else kind(draw)
    if draw.chance(0.5):
        return *filled(PRESENT, f"{colour} {shape}"), "Yes." if (colour, shape) in shown else "No."
    return *filled(PRESENT, shape), "Yes." if any(shape == other for _, other in shown) else "No."


def one_shape(draw):
    width, height, scale = canvas(draw)
    colour, shape = kind(draw)
    picture = ground(draw, (width, height), COLOURS[colour])
    radius = draw.rng.uniform(.16, .46) * min(width, height)
    paint(draw, picture, colour, shape, draw.rng.uniform(radius, width - radius), draw.rng.uniform(radius, height - radius), radius)
    return Scene(finish(draw, picture, scale), {
        "picture": (*WHAT, f"A {colour} {shape}.".replace("A o", "An o")), "shape": (*SHAPE, f"A {shape}."),
        "colour": (*COLOUR, f"It is {colour}."), "presence": presence(draw, [(colour, shape)]), "count": (*COUNT, counted(1, "shape"))})


def two_shapes(draw):
    width, height, scale = canvas(draw)
    shown = [kind(draw), kind(draw)]
    picture = ground(draw, (width, height), *(COLOURS[colour] for colour, _ in shown))
    upright = (height > width) if width != height else draw.chance(0.5)
    sides = SIDES[upright]
    for (colour, shape), middle in zip(shown, (.27, .73)):
        along, across = (height, width) if upright else (width, height)
        radius = draw.rng.uniform(.6, 1) * min(.22 * along, .45 * across)
        a, b = along * (middle + draw.rng.uniform(-.03, .03)), draw.rng.uniform(radius, across - radius)
        paint(draw, picture, colour, shape, *((b, a) if upright else (a, b)), radius)
    side = draw.number(0, 1)
    colour, shape = shown[side]
    asked = draw.choice(SHAPES)
    return Scene(finish(draw, picture, scale), {
        "position": (*filled(WHERE, sides[side]), f"A {colour} {shape}.".replace("A o", "An o")), "presence": presence(draw, shown),
        "count": (*filled(COUNT_KIND, plural(asked)), counted(sum(shape == asked for _, shape in shown), asked))
        if draw.chance(0.5) else (*COUNT, counted(2, "shape"))})


def many_shapes(draw):
    """Up to six, alike or not, none touching another."""
    width, height, scale = canvas(draw)
    number = draw.number(1, 6)
    colours = draw.sample(COLOURS, 1 if draw.chance(0.6) else 2)
    while True:
        picture_kinds = [(draw.choice(colours), draw.choice(SHAPES)) for _ in range(2)]
        if draw.held_out or all(draw.owns(f"{colour} {shape}") for colour, shape in picture_kinds):
            break
    if draw.chance(0.5):
        picture_kinds[1] = picture_kinds[0]
    picture = ground(draw, (width, height), *(COLOURS[colour] for colour in colours))
    radius = draw.rng.uniform(.55, 1) * min(.2 * math.sqrt(width * height) / math.sqrt(number) * 1.35, .32 * min(width, height))
    placed = []
    for _ in range(4000):
        x, y = draw.rng.uniform(radius, width - radius), draw.rng.uniform(radius, height - radius)
        if all(math.dist((x, y), other) > 2.25 * radius for other in placed):
            placed.append((x, y))
            if len(placed) == number:
                break
    shown = [draw.choice(picture_kinds) for _ in placed]
    for (colour, shape), (x, y) in zip(shown, placed):
        paint(draw, picture, colour, shape, x, y, radius * draw.rng.uniform(.8, 1))
    asked = draw.choice([shape for _, shape in picture_kinds])
    by_kind = (*filled(COUNT_KIND, plural(asked)), counted(sum(shape == asked for _, shape in shown), asked))
    return Scene(finish(draw, picture, scale), {
        "count": by_kind if draw.chance(0.4) else (*COUNT, counted(len(placed), "shape")), "presence": presence(draw, shown)})


def printed(draw, text, wordings, skill):
    """A text on a ground, wide as a line or with room around it."""
    font = FONTS_FOUND.draw(draw, draw.choice([20, 26, 32, 40, 56]))
    left, top, right, bottom = font.getbbox(text)
    room = draw.rng.uniform(.15, .9) * font.size
    width = right - left + 2 * room + draw.rng.uniform(0, .6) * font.size
    height = bottom - top + 2 * room
    if draw.chance(0.35):
        height = max(height, width * draw.rng.uniform(.4, .8))
    if draw.chance(0.6):
        ink, paper = (20, 20, 20), (246, 246, 246)
        ink, paper = (ink, paper) if draw.chance(0.75) else (paper, ink)
    else:
        ink = COLOURS[draw.choice(COLOURS)]
        paper = draw.choice([one for one in GROUNDS if math.dist(one, ink) > 170])
    paper = tint(draw, paper)
    picture = Image.new("RGB", (round(width), round(height)), paper)
    x = draw.rng.uniform(room * .5, max(room * .5, picture.width - (right - left) - room * .5)) - left
    y = draw.rng.uniform(room * .5, max(room * .5, picture.height - (bottom - top) - room * .5)) - top
    ImageDraw.Draw(picture).text((x, y), text, font=font, fill=tint(draw, ink))
    if not draw.held_out:
        picture = bent(draw, picture, paper)
    return Scene(finish(draw, picture, 1), {skill: (*wordings, text)})


def bent(draw, picture, paper):
    """Half of the lines in training are slanted, turned, wide or narrow, some of them soft: no font looks like that, so unseen ones are
    no stranger."""
    if draw.chance(0.5):
        slant, turn, stretch = draw.rng.uniform(-.25, .25), draw.rng.uniform(-.05, .05), draw.rng.uniform(.72, 1.35)
        width, height = picture.size
        new_width, new_height = round(stretch * width + abs(slant) * height), round(height + abs(turn) * width)
        # From a place in the new picture to one in the old: both middles are the same.
        a, b, d = 1 / stretch, slant / stretch, turn / stretch
        c = width / 2 - a * new_width / 2 - b * new_height / 2
        f = height / 2 - d * new_width / 2 - new_height / 2
        picture = picture.transform((new_width, new_height), Image.Transform.AFFINE, (a, b, c, d, 1, f),
                                    Image.Resampling.BICUBIC, fillcolor=paper)
    if draw.chance(0.15):
        picture = picture.filter(ImageFilter.GaussianBlur(draw.rng.uniform(.4, 1.1)))
    return picture


def word(draw):
    while True:
        text = draw.invented_word() if draw.chance(0.5) else draw.choice(WORDS) if draw.chance(0.7) else draw.choice(CITIES + NAMES)
        if len(text) <= 8 and draw.owns(f"printed {text}"):
            break
    return printed(draw, draw.choice([text, text, text.capitalize(), text.upper()]), READ, "printed word")


def number(draw):
    while True:
        text = "".join(str(draw.number(0, 9)) for _ in range(draw.number(1, 4)))
        if len(text) == 1 or draw.owns(f"printed {text}"):
            return printed(draw, text, READ_NUMBER, "printed number")


SCENES = {"picture": one_shape, "shape": one_shape, "colour": one_shape, "count": many_shapes, "position": two_shapes,
          "presence": None, "printed word": word, "printed number": number}
WEIGHTS = {"picture": .6, "count": 3.4, "position": .8, "printed word": 6.0, "printed number": 1.2, "shape": .5, "colour": .5, "presence": .9}


def make_scene(skill, draw):
    scene = SCENES[skill] or draw.choice([one_shape, two_shapes, many_shapes])
    return scene(draw)
