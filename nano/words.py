"""The vocabulary of carat-nano's world: its facts, its people and its plain words.

Everything the model is taught to know is listed here, so "right" can be checked by reading a table.
"""

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing",
    "Germany": "Berlin", "Egypt": "Cairo", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Poland": "Warsaw", "Austria": "Vienna", "Portugal": "Lisbon",
    "Ireland": "Dublin", "Russia": "Moscow", "India": "New Delhi", "Cuba": "Havana", "Peru": "Lima",
    "Chile": "Santiago", "Canada": "Ottawa", "Kenya": "Nairobi", "Turkey": "Ankara",
    "Hungary": "Budapest", "Denmark": "Copenhagen", "Belgium": "Brussels", "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
}
CONTINENTS = {
    "Europe": "France Italy Spain Germany Greece Norway Sweden Finland Poland Austria Portugal "
              "Ireland Russia Hungary Denmark Belgium",
    "Asia": "Japan China India Turkey Thailand Vietnam",
    "Africa": "Egypt Kenya",
    "America": "Cuba Peru Chile Canada",
}
CONTINENT_OF = {country: name for name, members in CONTINENTS.items() for country in members.split()}
_PAIRS = ("hot cold, big small, up down, left right, day night, fast slow, old young, happy sad, "
          "open closed, wet dry, light dark, hard soft, full empty, high low, early late, rich poor")
OPPOSITES = {a: b for pair in _PAIRS.split(", ") for a, b in (pair.split(), pair.split()[::-1])}
SOUNDS = {
    "dog": "barks", "cat": "meows", "cow": "moos", "sheep": "bleats", "duck": "quacks", "lion": "roars",
    "horse": "neighs", "bee": "buzzes", "owl": "hoots", "frog": "croaks", "pig": "oinks", "snake": "hisses",
}
YOUNG = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "duck": "duckling", "lion": "cub",
    "horse": "foal", "frog": "tadpole", "pig": "piglet",
}
COLOURS_OF = {
    "sky": "blue", "grass": "green", "snow": "white", "blood": "red", "coal": "black", "banana": "yellow",
    "carrot": "orange", "milk": "white", "sun": "yellow", "leaf": "green", "cherry": "red", "ocean": "blue",
}
COLOURS = "red green blue yellow black white orange purple".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()
CITIES = sorted(set(CAPITALS.values()))
NAMES = "Tom Anna Ben Lucy Sam Mia Max Eva Leo Zoe Paul Nina Jack Emma Omar Ruth".split()
THINGS = "apples books coins pens stamps shells cards eggs cups keys".split()
SORTABLE = ("apple bread cloud dog egg fish green hat island jacket kitten lamp moon nest ocean paper "
            "queen river stone tiger umbrella valley window yellow zebra").split()
WORDS = SORTABLE + (
    "piano chair forest pencil rocket winter summer garden silver candle mountain bridge coffee monkey "
    "pepper purple market engine button doctor flower guitar hammer lemon mirror needle pocket rabbit "
    "saddle tomato wagon anchor basket camera dragon bottle blanket castle cousin desert dinner feather "
    "finger ginger helmet honey jungle ladder letter magnet melon parrot pillow planet pumpkin ribbon "
    "sailor school shadow singer spider sugar temple thunder ticket tunnel turtle velvet violin wallet"
).split()

# Things a curious user may ask for that are not in the world: the model declines instead of inventing.
UNKNOWN_PLACES = ("Brazil Mexico Nigeria Iceland Morocco Ghana Nepal Jordan Laos Angola Ukraine Romania "
                  "Bulgaria Uganda Zambia Bolivia Panama Qatar Oman Malta Tunisia Croatia Serbia "
                  "Latvia Estonia Mongolia Australia Pakistan Indonesia Korea").split()
UNKNOWN_TOPICS = ("the stock market, quantum physics, the world cup, the president, the second world war, "
                  "black holes, chess openings, tax law, the roman empire, dinosaurs, the moon landing, "
                  "football, jazz music, poetry, philosophy, medicine, the bible, movies, cooking rice, "
                  "computers, volcanoes, electricity, gold prices, the internet, painting, the brain, "
                  "robots, vitamins, democracy, gravity").split(", ")
