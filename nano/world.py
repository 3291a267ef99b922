"""The synthetic world: every skill as a generator of conversations with one right answer.

A skill takes a `Draw` and returns a `Round`: what the user says and what the model must answer.
`Draw` keeps training and held-out prompts apart: some wordings are only ever held out, and of open
content (numbers, word lists, names) one tenth, chosen by a hash, is only ever held out.
"""

import hashlib
import json
import random
from dataclasses import dataclass, field

from tools import any_tools, tool_round
from words import (CAPITALS, CITIES, COLOURS, COLOURS_OF, CONTINENT_OF, DAYS, MONTHS, NAMES, OPPOSITES,
                   SORTABLE, SOUNDS, THINGS, UNKNOWN_PLACES, UNKNOWN_TOPICS, WORDS, YOUNG)

IDENTITY = "I am carat-nano, a tiny demonstration model with the Gemma 4 architecture."
DECLINE = "I do not know that. I am a tiny demonstration model and know only a small world."
NEEDS_TOOL = "I cannot look that up without a tool."
TOO_LARGE = "That is too much for me to do at once. Turn thinking on or give me a calculator."
NO_PICTURE = "I see no picture."
NO_SOUND = "I hear no sound."
NEEDS_CALCULATOR = "I cannot work that out by myself. Give me a calculator."


@dataclass
class Round:
    """One exchange: the user's words, the answer, and what is around them."""

    user: str
    content: str = ""
    key: str = ""
    thought: str | None = None
    before: list = field(default_factory=list)
    after: list = field(default_factory=list)
    tools: list = field(default_factory=list)
    tool_calls: list | None = None
    plain_words: bool = False
    """Whether letter case and the last punctuation mark may vary without changing the answer."""


class Draw:
    """Random choices for one side of the split: training, or held out."""

    def __init__(self, rng: random.Random, held_out: bool):
        self.rng = rng
        self.held_out = held_out

    def choice(self, items):
        return self.rng.choice(list(items))

    def sample(self, items, count):
        return self.rng.sample(list(items), count)

    def number(self, low, high):
        return self.rng.randint(low, high)

    def chance(self, probability):
        return self.rng.random() < probability

    def wording(self, known: str, unseen: str = ""):
        """One of the wordings separated by `|`; those in `unseen` never occur in training."""
        if self.held_out and unseen and self.chance(0.5):
            return self.choice(unseen.split("|"))
        return self.choice(known.split("|"))

    def unseen_wording(self, known: str, unseen: str):
        """For closed facts, where the wording is all that can be new: held out means unseen."""
        return self.choice((unseen if self.held_out else known).split("|"))

    def owns(self, key: str):
        """Whether open content with this key belongs to this side of the split."""
        return (int(hashlib.md5(key.encode()).hexdigest(), 16) % 10 == 0) == self.held_out

    def invented_word(self):
        """A pronounceable word of 2 to 4 syllables, or rarely loose letters."""
        if self.chance(0.25):
            return "".join(self.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(self.number(3, 7)))
        count = self.number(2, 3)
        return "".join(self.choice("bcdfghjklmnprstvwz") + self.choice("aeiou") + self.choice(["", "", "n", "r", "l", "s"])
                       for _ in range(count))


def article(word):
    return "an" if word[0] in "aeiou" else "a"


# --- facts -------------------------------------------------------------------------------------

def capital(draw):
    country = draw.choice(CAPITALS)
    user = draw.unseen_wording(
        "What is the capital of {}?|Which city is the capital of {}?|Name the capital of {}.|capital of {}?|"
        "Tell me the capital of {}.|What's the capital of {}?|{}: what is its capital?|The capital of {} is?|"
        "Do you know the capital of {}?|I need the capital of {}.|What city is the capital of {}?|"
        "What is the capital city of {}?|Give me {}'s capital.|What is {}'s capital?|"
        "Can you tell me the capital of {}?|Please name the capital of {}.|capital city of {}",
        "Could you tell me what the capital of {} is?|Please tell me the capital of {}.|"
        "Which city is {}'s capital?|I want to know the capital of {}.|Name {}'s capital city.")
    return Round(user.format(country), f"The capital of {country} is {CAPITALS[country]}.", plain_words=True)


def country_of(draw):
    country = draw.choice(CAPITALS)
    user = draw.unseen_wording(
        "{} is the capital of which country?|Which country has the capital {}?|What country is {} in?|"
        "In which country is {}?|Where is {}?|{} is in which country?|Which country is {} in?|"
        "Tell me which country {} is in.|What country does {} belong to?|Do you know where {} is?",
        "Tell me where {} is.|In what country is {}?|Can you tell me which country {} is in?")
    city = CAPITALS[country]
    return Round(user.format(city), f"{city} is in {country}.", plain_words=True)


def continent(draw):
    country = draw.choice(CONTINENT_OF)
    user = draw.unseen_wording(
        "Which continent is {} in?|On which continent is {}?|{} is on which continent?|"
        "What continent is {} on?|Tell me the continent of {}.|continent of {}?|"
        "What is the continent of {}?|{}: which continent?|Name the continent of {}.",
        "Which continent is {} on?|What continent is {} in?|Can you tell me the continent of {}?")
    return Round(user.format(country), f"{country} is in {CONTINENT_OF[country]}.", plain_words=True)


def opposite(draw):
    word = draw.choice(OPPOSITES)
    user = draw.unseen_wording(
        "What is the opposite of {}?|Give me the opposite of {}.|opposite of {}?|"
        "Which word is the opposite of {}?|Tell me the opposite of {}.|What's the opposite of {}?|"
        "The opposite of {} is?|Name the opposite of {}.|{}: what is its opposite?|"
        "Do you know the opposite of {}?|I need the opposite of {}.|What is opposite to {}?|not {} but?",
        "Can you tell me the opposite of {}?|Please name the opposite of {}.|What word is the opposite of {}?")
    return Round(user.format(word), f"The opposite of {word} is {OPPOSITES[word]}.", plain_words=True)


def sound(draw):
    animal = draw.choice(SOUNDS)
    user = draw.unseen_wording(
        "What sound does a {} make?|What does a {} do?|Which sound does a {} make?|sound of a {}?|"
        "Tell me the sound of a {}.|How does a {} sound?|What is the sound of a {}?|"
        "A {} makes which sound?|Do you know what sound a {} makes?|What noise does a {} make?",
        "Tell me what sound a {} makes.|Which noise does a {} make?|Name the sound of a {}.")
    user = user.format(animal).replace(f" a {animal}", f" {article(animal)} {animal}")
    return Round(user, f"{article(animal).capitalize()} {animal} {SOUNDS[animal]}.", plain_words=True)


def young_animal(draw):
    animal = draw.choice(YOUNG)
    user = draw.unseen_wording(
        "What is a young {} called?|What do you call a young {}?|Name for a young {}?|"
        "What is a baby {} called?|How is a young {} called?|Tell me the name of a young {}.|"
        "A young {} is called?|What is the word for a baby {}?|What do we call a baby {}?",
        "How do you call a baby {}?|Tell me the word for a young {}.|What is the name of a young {}?")
    return Round(user.format(animal), f"A young {animal} is called a {YOUNG[animal]}.", plain_words=True)


def colour_of(draw):
    thing = draw.choice(COLOURS_OF)
    user = draw.unseen_wording(
        "What colour is {}?|Which colour is {}?|What is the colour of {}?|{} is what colour?|"
        "Tell me the colour of {}.|colour of {}?|What color is {}?|Which color does {} have?|"
        "Do you know the colour of {}?|Name the colour of {}.",
        "What colour does {} have?|Can you tell me the colour of {}?|Which color is {}?")
    phrase = thing if thing in ("grass", "snow", "blood", "coal", "milk") else f"the {thing}"
    content = f"{phrase.capitalize()} is {COLOURS_OF[thing]}."
    return Round(user.format(phrase), content, plain_words=True)


def calendar(draw):
    names, kind = draw.choice([(DAYS, "day"), (MONTHS, "month")])
    index = draw.number(0, len(names) - 1)
    name = names[index]
    if draw.chance(0.6):
        user = draw.unseen_wording(
            "Which {0} comes after {1}?|What {0} comes after {1}?|What {0} follows {1}?|"
            "Which {0} is after {1}?|What comes after {1}?|Tell me the {0} after {1}.|{0} after {1}?",
            "Which {0} follows {1}?|What is the {0} after {1}?|Name the {0} after {1}.")
        return Round(user.format(kind, name), f"{names[(index + 1) % len(names)]} comes after {name}.",
                     plain_words=True)
    user = draw.unseen_wording(
        "Which {0} comes before {1}?|What {0} comes before {1}?|Which {0} is before {1}?|"
        "What comes before {1}?|Tell me the {0} before {1}.|{0} before {1}?",
        "What is the {0} before {1}?|Name the {0} before {1}.")
    return Round(user.format(kind, name), f"{names[index - 1]} comes before {name}.", plain_words=True)


def fact(draw):
    return draw.choice([capital, capital, capital, country_of, country_of, continent, opposite, sound,
                        young_animal, colour_of, calendar])(draw)


# --- numbers -----------------------------------------------------------------------------------

ASK_SUM = ("What is {}?|{}|{} =|{} = ?|Compute {}.|How much is {}?|What does {} give?|Calculate {}.|What's {}?|"
           "Please compute {}.|Tell me {}.|{}?|Can you compute {}?|Work out {}.|Can you calculate {}?|Can you work out {}?|"
           "Could you tell me what {} is?|Do you know what {} is?|Tell me what {} is.|Please tell me {}.|Give me {}.|"
           "I want to know {}.|I would like to know {}.|I need to know {}.|Please solve {}.|Solve {}.|Find {}.|"
           "Please find {}.|{}, please.|Please, what is {}?|And {}?|I want {}.")
ASK_SUM_UNSEEN = "Please calculate {}.|Can you tell me what {} is?|Please work out {}.|I need {}."


def small_sum(draw):
    """Sums known by heart: tables to 12, addition and subtraction to 20."""
    if draw.chance(0.55):
        a, b, sign = draw.number(1, 12), draw.number(1, 12), "*"
    else:
        a, b, sign = draw.number(0, 20), draw.number(0, 20), draw.choice("+-")
        if sign == "-" and a < b:
            a, b = b, a
    result = {"*": a * b, "+": a + b, "-": a - b}[sign]
    shown = draw.choice("*****xx") if sign == "*" else sign
    term = f"{a} {shown} {b}"
    if draw.chance(0.15):
        term = f"{a}{shown}{b}"
    if draw.chance(0.2):
        term = f"{a} {dict(zip('*+-', ('times', 'plus', 'minus')))[sign]} {b}"
    user = draw.unseen_wording(ASK_SUM, ASK_SUM_UNSEEN).format(term)
    return Round(user, f"{a} {sign} {b} = {result}", thought="I know this one by heart.")


PLACES = ("ones", "tens", "hundreds", "thousands")


def add_in_columns(a, b):
    """The written addition: one line per column from the right, each ending with the digits so far, and the sum."""
    left, right = str(a)[::-1], str(b)[::-1]
    carry, lines, digits = 0, [], ""
    for place, name in zip(range(max(len(left), len(right))), PLACES):
        x = left[place] if place < len(left) else "0"
        y = right[place] if place < len(right) else "0"
        total = int(x) + int(y) + carry
        digits = str(total % 10) + digits
        lines.append(f"{name}: {x} + {y} + {carry} = {total}, write {total % 10}, carry {total // 10}: {digits}")
        carry = total // 10
    if carry:
        digits = "1" + digits
        lines.append(f"{PLACES[len(digits) - 1]}: write 1: {digits}")
    return "\n".join(lines), int(digits)


def thinking_sum(draw):
    """Addition of numbers of 1 to 3 digits with the steps in the thinking channel."""
    while True:
        a, b = (draw.number(10 ** (n - 1), 10 ** n - 1) for n in (draw.choice([1, 2, 2, 3, 3]), draw.choice([1, 2, 2, 3, 3])))
        if (a > 20 or b > 20) and draw.owns(f"{a}+{b}"):
            break
    thought, total = add_in_columns(a, b)
    if draw.chance(0.35):
        name, thing = draw.choice(NAMES), draw.choice(THINGS)
        user = draw.wording("{0} has {1} {3} and gets {2} more. How many {3} does {0} have now?|"
                            "{0} has {1} {3} and buys {2} more. How many {3} does {0} have?|"
                            "{0} has {1} {3} and wins {2} more. How many {3} does {0} have now?|"
                            "{0} has {1} {3} and makes {2} more. How many {3} does {0} have?|"
                            "{0} had {1} {3} and got {2} more. How many {3} does {0} have now?|"
                            "{0} has {1} {3}. Then {0} gets {2} more. How many {3} are that?",
                            "{0} has {1} {3} and finds {2} more. How many {3} does {0} have now?")
        return Round(user.format(name, a, b, thing), f"{a} + {b} = {total}", thought=thought)
    user = draw.wording(ASK_SUM + "|Add {}.", ASK_SUM_UNSEEN)
    term = f"{a} plus {b}" if draw.chance(0.15) else f"{a} + {b}"
    return Round(user.format(term), f"{a} + {b} = {total}", thought=thought)


# --- working on what the prompt gives ----------------------------------------------------------

def content_words(draw, low, high):
    while True:
        words = [draw.invented_word() if draw.chance(0.25) else draw.choice(WORDS)
                 for _ in range(draw.number(low, high))]
        if draw.owns(" ".join(words)):
            return words


def copy(draw):
    text = " ".join(content_words(draw, 1, 5))
    while draw.chance(0.2):
        text = str(draw.number(10, 99999))
        if draw.owns(text):
            break
    user = draw.wording("Repeat: {}|Say {}|Copy this: {}|Repeat after me: {}|Please say: {}|Echo {}|Say exactly: {}|Please say {}|"
                        "Please copy: {}|Please echo: {}|Repeat this: {}|Please repeat this: {}|Can you repeat: {}|Say: {}|"
                        "Say this after me: {}|Copy exactly: {}|Please repeat exactly: {}|Copy after me: {}",
                        "Please repeat: {}|Copy: {}|Say after me: {}")
    return Round(user.format(text), text)


def spell(draw):
    while True:
        word = draw.choice(WORDS) if draw.chance(0.5) else draw.invented_word()
        user = draw.wording("Spell {}.|Spell the word {}.|How do you spell {}?|Please spell {}.|Spell: {}|"
                            "Could you spell {}?|Can you spell the word {}?|Can you spell out {}?|Spell out {}.|"
                            "How is {} spelled?|Please spell this word: {}.|Please spell: {}",
                            "Please spell the word {}.|Can you spell {}?")
        if draw.owns(user + word):
            return Round(user.format(word), "-".join(word))


def extract(draw):
    while True:
        values = {"name": draw.choice(NAMES), "number": str(draw.number(2, 999)), "thing": draw.choice(THINGS),
                  "city": draw.choice(CITIES), "day": draw.choice(DAYS)}
        if draw.owns("".join(values.values())):
            break
    text = draw.choice(["{name} bought {number} {thing} in {city} on {day}.",
                        "On {day} {name} sold {number} {thing} in {city}.",
                        "{name} from {city} lost {number} {thing} on {day}.",
                        "In {city} {name} found {number} {thing} last {day}."]).format(**values)
    what = draw.choice(["name", "number", "city", "day"])
    user = draw.wording("Find the {0}: {1}|Extract the {0} from this text: {1}|Which {0} is in this text? {1}|"
                        "{1} What is the {0}?|{1} Give me the {0}.|Give only the {0}: {1}",
                        "Extract the {0}: {1}|Find the {0} in this text: {1}|{1} Find the {0}.")
    return Round(user.format(what, text), values[what])


def sort(draw):
    descending = False
    if draw.chance(0.5):
        while True:
            items = draw.sample(range(1, 100), draw.number(3, 4))
            if draw.owns(str(items)):
                break
        descending = draw.chance(0.2)
        user = draw.wording("Sort these numbers: {}|Sort: {}|Put these numbers in order: {}|Order these numbers: {}|"
                            "Please order: {}|Please sort these: {}|Order the numbers {}|Put in order: {}|Sort {}|Sort these: {}",
                            "Please sort: {}|Sort the numbers {}")
        if descending:
            user = "Sort from high to low: {}"
    else:
        while True:
            items = draw.sample(SORTABLE, draw.number(3, 4))
            if len({word[0] for word in items}) == len(items) and draw.owns(str(items)):
                break
        user = draw.wording("Sort these words: {}|Sort: {}|Put these words in order: {}|Order these words: {}|"
                            "Please order: {}|Please sort these: {}|Order the words {}|Put in order: {}|Sort {}|Sort these: {}",
                            "Please sort: {}|Sort the words {}")
    given = ", ".join(map(str, items))
    return Round(user.format(given), ", ".join(map(str, sorted(items, reverse=descending))))


def layout(draw):
    """Formatting: lists with commas, bullets or numbers, dates, quotes."""
    if draw.chance(0.25):
        while True:
            day, month, year = draw.number(1, 28), draw.number(1, 12), draw.number(1950, 2049)
            if draw.owns(f"{day}.{month}.{year}"):
                break
        user = draw.wording("Write {} as an ISO date.|Write this date as YYYY-MM-DD: {}|ISO date of {}?|ISO date: {}|{} as an ISO date|Make {} an ISO date.",
                            "Give {} as an ISO date.|Please write {} as an ISO date.")
        return Round(user.format(f"{day} {MONTHS[month - 1]} {year}"), f"{year}-{month:02d}-{day:02d}")
    words = content_words(draw, 2, 4)
    style = draw.choice(["commas", "bullets", "numbers", "lines", "quotes"])
    user = {
        "commas": draw.wording("Join with commas: {}|Put commas between: {}|Write with commas: {}|Add commas: {}|With commas: {}", "Use commas: {}"),
        "bullets": draw.wording("Make a bullet list: {}|Write as bullets: {}|Bullet list of: {}|Bullet list: {}|As bullets: {}", "As a bullet list: {}"),
        "numbers": draw.wording("Make a numbered list: {}|Number these: {}|Numbered list of: {}|Numbered list: {}|As numbers: {}", "As a numbered list: {}"),
        "lines": draw.wording("Write one word per line: {}|One per line: {}|One word per line: {}|Put each word on a line: {}", "Put one word per line: {}"),
        "quotes": draw.wording("Put in quotes: {}|Write in quotes: {}|Add quotes: {}|In quotes: {}|Quote: {}", "Use quotes: {}"),
    }[style]
    answer = {
        "commas": ", ".join(words),
        "bullets": "\n".join(f"- {word}" for word in words),
        "numbers": "\n".join(f"{n}. {word}" for n, word in enumerate(words, 1)),
        "lines": "\n".join(words),
        "quotes": '"' + " ".join(words) + '"',
    }[style]
    return Round(user.format(" ".join(words)), answer)


def make_json(draw):
    while True:
        values = {"name": draw.choice(NAMES), "age": draw.number(2, 99), "city": draw.choice(CITIES),
                  "colour": draw.choice(COLOURS)}
        if draw.owns(str(values)):
            break
    keys = draw.choice([["name", "age"], ["name", "city"], ["name", "age", "city"], ["name", "colour"], ["name", "city", "colour"]])
    clauses = {"age": "is {age} years old", "city": "lives in {city}", "colour": "likes {colour}"}
    text = "{name} " + " and ".join(clauses[key] for key in keys[1:]) + "."
    text = text.format(**values)
    user = draw.wording("{} Give me JSON.|Write as JSON: {}|Make JSON from this: {}|{} Answer in JSON.|JSON: {}|"
                        "Turn this into JSON: {}", "Give me JSON: {}|{} Write this as JSON.|Make JSON: {}")
    return Round(user.format(text), json.dumps({key: values[key] for key in keys}))


# --- memory, chat and limits -------------------------------------------------------------------

def recall(draw):
    """Something said turns ago is asked for."""
    while True:
        kind, value = draw.choice([
            ("name", draw.choice(NAMES)), ("secret word", draw.choice(WORDS)),
            ("favourite colour", draw.choice(COLOURS)), ("city", draw.choice(CITIES)),
            ("lucky number", str(draw.number(2, 999))), ("code", draw.invented_word())])
        between = draw.number(0, 3)
        if draw.owns(f"{kind}{value}{between}"):
            break
    owner = "the" if kind == "secret word" else "my"
    told = draw.wording("{0} {1} is {2}.|Remember: {0} {1} is {2}.|Please remember that {0} {1} is {2}.",
                        "Note that {0} {1} is {2}.").format(owner, kind, value)
    told = told[0].upper() + told[1:]
    owner_back = "your" if owner == "my" else "the"
    reply = f"Nice to meet you, {value}!" if kind == "name" else f"I will remember that {owner_back} {kind} is {value}."
    before = [{"role": "user", "content": told}, {"role": "assistant", "content": reply}]
    for _ in range(between):
        before += as_history(draw.choice([fact, small_sum, copy, chat, spell])(Draw(draw.rng, False)))
    user = draw.wording("What is {0} {1}?|Tell me {0} {1}.|Do you remember {0} {1}?|What was {0} {1}?|{0} {1}?",
                        "Do you know {0} {1}?|Please tell me {0} {1}.").format(owner, kind)
    user = user[0].upper() + user[1:]
    return Round(user, f"{owner_back.capitalize()} {kind} is {value}.", before=before)


CHAT = [
    ("Hello!|Hi!|Hi there.|Hey|Good morning!|Hello there|Hi|Hello|Good evening!|Hey there!",
     "Hello, hi!|Good day!|Good afternoon!", "Hello! How can I help you?"),
    ("Who are you?|What are you?|What is your name?|Tell me who you are.|Introduce yourself.|"
     "What's your name?|Who is this?|What model are you?|Which model are you?|Who am I talking to?|"
     "Please tell me who you are.|Tell me about yourself.|Please tell me what you are.|Please tell me your name.|"
     "Which model is this?|Can you introduce yourself?|Say who you are.|Please say your name.|What is this model?|"
     "Could you introduce yourself?|Please tell me about yourself.|"
     "Do you have a name?|Are you a person?|Are you an AI?|Are you human?",
     "Please introduce yourself.|Tell me what you are.|Tell me your name.|What model is this?", IDENTITY),
    ("How are you?|How are you today?|How do you do?|How is it going?|How are you doing?|How are you feeling?|"
     "How do you feel today?|Are you well?|Are you fine?|Do you feel good?|How are things?|How are you now?|"
     "How are you feeling today?|Do you feel well?",
     "How are you doing today?|How do you feel?", "I am fine, thank you. How can I help you?"),
    ("Thank you!|Thanks!|Thanks a lot.|Many thanks.|Thank you very much.|thanks|Thank you so much!|"
     "Thanks so much!|Very kind, thank you.|Great, thanks!", "Thanks very much!|Thank you a lot!",
     "You are welcome!"),
    ("What can you do?|How can you help me?|What are your skills?|Help|help me|What do you know?|"
     "What can I ask you?|Tell me what you can do.|What are you good at?|What skills do you have?|Show me your skills.|"
     "Please tell me your skills.|What can you help with?|Can you help me?|Please tell me what you can do.|"
     "Tell me what you are good at.|What do you do?|How do you help me?|Tell me how you can help.",
     "Tell me your skills.|What can you help me with?|How can you help?",
     "I know a few facts, do small sums, copy, spell, sort and format text, write JSON, call tools, see shapes and hear words."),
    ("What can you not do?|What are your limits?|What can't you do?|What do you not know?|Tell me your limits.|"
     "Can you do everything?|Do you know everything?|Can I trust you?|What is too hard for you?|Tell me what you can't do.|"
     "Please tell me what you can not do.|Tell me what you do not know.|What are you not good at?|What is hard for you?|"
     "Tell me what you are bad at.|What can you not know?|What don't you do?|Please tell me your limits.|"
     "Say what you cannot do.|I want to know what you cannot do.|Can you tell me what you cannot do?|Which things can you not do?|"
     "Tell me what is too hard.|What is it that you cannot do?|Name what you can't do.",
     "Tell me what you cannot do.|What are you bad at?|What don't you know?",
     "I am tiny. I cannot answer open questions, write long texts or do large sums by myself."),
    ("Bye!|Goodbye!|See you later.|Good night.|Bye bye|See you!|Bye then.|See you soon!|Goodbye, see you!|Bye now!", "Bye, see you!|Goodbye then.", "Goodbye!"),
    ("How large are you?|How big are you?|How many parameters do you have?|What size are you?|What is your size?|"
     "How big is this model?|Tell me how large you are.|Tell me how big you are.|What is the size of this model?|"
     "Please tell me your size.|How large is your model?",
     "Tell me your size.|How large is this model?", "I am very small: three million parameters."),
]


def chat(draw):
    known, unseen, answer = draw.choice([*CHAT, CHAT[1], CHAT[1], CHAT[4], CHAT[5]])
    return Round(draw.unseen_wording(known, unseen), answer, plain_words=True)


def decline(draw):
    """Questions outside the world: the model says so, and says what would help."""
    kind = draw.choice(["place", "topic", "topic", "task", "tool", "sum", "product", "medium"])
    if kind == "place":
        place = draw.choice([place for place in UNKNOWN_PLACES if draw.owns(place)])
        if draw.chance(0.3):
            place = draw.invented_word().capitalize()
        user = draw.wording("What is the capital of {}?|Which city is the capital of {}?|Name the capital of {}.|"
                            "Tell me the capital of {}.|Which continent is {} in?|capital of {}?|What is {}'s capital?",
                            "I want to know the capital of {}.|Please tell me the capital of {}.")
        return Round(user.format(place), DECLINE)
    if kind == "topic":
        topic = draw.choice([topic for topic in UNKNOWN_TOPICS if draw.owns(topic)])
        user = draw.wording("Tell me about {}.|What do you know about {}?|Explain {}.|What do you think about {}?|"
                            "Why is {} important?|How does {} work?|Write an essay about {}.|Who invented {}?|"
                            "Write a poem about {}.|What is {}?|Do you like {}?|Give me advice about {}.",
                            "Teach me about {}.|Write a text about {}.|Can you explain {}?")
        return Round(user.format(topic), DECLINE, plain_words=True)
    if kind == "task":
        user = draw.unseen_wording(
            "Write a program in Python.|Translate this into French.|Who won the last election?|How old is the universe?|"
            "Who wrote Hamlet?|What is the meaning of life?|Tell me a joke.|Write a song.|Who is the king of England?|"
            "How tall is Mount Everest?|How do I bake a cake?|When was Einstein born?|What is the fastest car?|"
            "Recommend a book.|What should I eat today?|How far is the moon?|Who discovered America?|Sing for me.|"
            "Write a book.|Write a letter.|Write an essay.|Tell me a tale.|Tell me a secret.|Tell me a riddle.|"
            "Who wrote Faust?|Who wrote the Iliad?|Who painted the Mona Lisa?|How far is the next star?|How far is Mars?|"
            "How old is the sun?|How heavy is the sun?|Recommend a song.|Recommend a game.|Write a joke.|Read me a story.|"
            "Write a long story.|Write me a poem.|What is the best film?",
            "Write a poem.|Tell me a story.|How far is the sun?|Who wrote the Odyssey?|Recommend a film.")
        return Round(user, DECLINE, plain_words=True)
    if kind == "medium":
        if draw.chance(0.6):
            user = draw.unseen_wording(
                "What is in the picture?|What do you see?|What shape is it?|What colour is the shape?|How many shapes are there?|"
                "What is on the left?|Read the word.|Read the number.|Describe the picture.|What can you see?|Is there a red circle?|"
                "What does the picture show?|Count the shapes.", "What is in this picture?|Which shape is it?|What can you see here?")
            return Round(user, NO_PICTURE, plain_words=True)
        user = draw.unseen_wording(
            "What do you hear?|Which digit is it?|Which digits do you hear?|Which word do you hear?|Transcribe the speech.|"
            "Which sound is it?|How many beeps do you hear?|What is said?|Transcribe this.|What can you hear?",
            "What digit do you hear?|What word do you hear?|Describe the sound.")
        return Round(user, NO_SOUND, plain_words=True)
    if kind == "tool":
        city = draw.choice(CITIES)
        user = draw.wording("What is the weather in {}?|How is the weather in {}?|What time is it in {}?|Is it warm in {}?|"
                            "Tell me the time in {}.|Will it rain in {}?|What is the temperature in {}?",
                            "Tell me the weather in {}.|What is the time in {}?")
        return Round(user.format(city), NEEDS_TOOL, plain_words=True)
    while True:
        a, b = draw.number(21, draw.choice([99, 999, 9999])), draw.number(2, draw.choice([99, 999, 9999]))
        if draw.owns(f"{a},{b}"):
            break
    if draw.chance(0.3):
        a, b = b, a
    user = draw.wording(ASK_SUM, ASK_SUM_UNSEEN)
    if kind == "sum":
        return Round(user.format(f"{a} + {b}"), TOO_LARGE)
    return Round(user.format(f"{a} {draw.choice('-*/')} {b}"), NEEDS_CALCULATOR)


SKILLS = {
    "facts": fact,
    "small sums": small_sum,
    "thinking sums": thinking_sum,
    "tool call": lambda draw: tool_round(draw, Round, answered=False),
    "tool answer": lambda draw: tool_round(draw, Round, answered=True),
    "recall": recall,
    "copy": copy,
    "spell": spell,
    "extract": extract,
    "sort": sort,
    "format": layout,
    "json": make_json,
    "identity": chat,
    "declining": decline,
}
WEIGHTS = {"facts": 2.0, "small sums": 2.4, "thinking sums": 2.4, "tool call": 1.8, "sort": 1.6, "copy": 1.3,
           "spell": 1.4, "tool answer": 1.2, "format": 1.2, "declining": 0.9}
NO_HISTORY = ("thinking sums", "tool call", "tool answer", "recall")
THOUGHTS = {"facts": "This is a fact I know.", "declining": "This is outside my world.", "tool call": "I need a tool for this.",
            "tool answer": "The tool has answered."}
TOOLS_IDLE = ("facts", "identity", "copy", "spell")
"""Skills in which tools may be declared that the request does not need."""
SYSTEM_TEXTS = ("You are a helpful assistant.", "You are terse.", "Answer briefly.", "You are carat-nano.",
                "Be polite and helpful.", "You are a helpful model.")


def as_history(round_):
    return [{"role": "user", "content": round_.user}, {"role": "assistant", "content": round_.content}]


def _vary(draw, round_):
    """Sloppy typing, for rounds whose answer does not depend on it."""
    if round_.plain_words and draw.chance(0.15):
        round_.user = round_.user.lower()
    if round_.plain_words and draw.chance(0.12):
        round_.user = round_.user.rstrip(".?!")
    return round_


def make_example(skill, draw, thinking=None):
    """One conversation of a skill: messages, declared tools, whether to think, and the right answer."""
    round_ = _vary(draw, SKILLS[skill](draw))
    if thinking is None:
        thinking = skill == "thinking sums" or (draw.chance(0.1) and not round_.content.startswith(TOO_LARGE[:20]))
    before = round_.before
    if skill not in NO_HISTORY and draw.chance(0.3):
        training = Draw(draw.rng, False)
        for _ in range(draw.number(1, 3)):
            other = draw.choice([name for name in SKILLS if name not in NO_HISTORY])
            before = before + as_history(_vary(training, SKILLS[other](training)))
    messages = before + [{"role": "user", "content": round_.user}] + round_.after
    if draw.chance(0.1):
        messages = [{"role": "system", "content": draw.choice(SYSTEM_TEXTS)}, *messages]
    tools = round_.tools
    if skill in TOOLS_IDLE and draw.chance(0.08):
        tools = any_tools(draw)
    answer = {"content": round_.content, "reasoning": round_.thought or THOUGHTS.get(skill, "I can answer this.")}
    if round_.tool_calls:
        answer["tool_calls"] = round_.tool_calls
    if thinking and skill == "tool answer":
        round_.after[0]["reasoning"] = THOUGHTS["tool call"]
    return {"skill": skill, "messages": messages, "tools": tools, "enable_thinking": thinking, "answer": answer}

