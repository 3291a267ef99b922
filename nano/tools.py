"""The tools of carat-nano's world: declarations in many shapes, requests, results, and answers."""

import json

from words import CITIES, NAMES, WORDS


def declare(name, description, properties):
    """An OpenAI function declaration with required scalar parameters, given as {name: (type, text)}."""
    schema = {key: {"type": kind, **({"description": text} if text else {})}
              for key, (kind, text) in properties.items()}
    return {"type": "function", "function": {
        "name": name, "description": description,
        "parameters": {"type": "object", "properties": schema, "required": list(properties)}}}


def _maybe(draw, text):
    """Parameter descriptions are optional: half of the declarations go without."""
    return text if draw.chance(0.5) else ""


def calculator(draw):
    while True:
        a, b = draw.number(2, draw.choice([99, 999, 9999])), draw.number(2, draw.choice([99, 999]))
        sign = draw.choice("+-*/")
        if draw.owns(f"calc{a}{sign}{b}"):
            break
    key = draw.choice(["expression", "expression", "expression", "expr", "input"])
    name = draw.choice(["calculator", "calculator", "calculator", "calculate", "calc"])
    tool = declare(name, draw.choice(["Evaluates an arithmetic expression.", "Calculates the result of an expression.", "A calculator."]),
                   {key: ("string", _maybe(draw, "The expression"))})
    user = draw.wording("What is {}?|Use the calculator: {}|Please compute {}.|How much is {}?|{}|Calculate {}.|Compute {}.|{} = ?|What's {}?|"
                        "Calculate {} with the calculator.|With the calculator: {}|Work out {}.|Please work out {}.|Compute {} with the calculator.|"
                        "Please use the calculator: {}|Can you compute {}?",
                        "Please calculate {}.|Work out {} with the calculator.")
    term = f"{a} {sign} {b}"
    result = {"+": a + b, "-": a - b, "*": a * b, "/": round(a / b, 2)}[sign]
    return tool, user.format(term), {key: term}, {"result": result}, f"{term} = {result}"


def _city(draw, kind):
    while True:
        city = draw.choice(CITIES) if draw.chance(0.8) else draw.invented_word().capitalize()
        if city in CITIES or draw.owns(kind + city):
            return city


def get_weather(draw):
    city = _city(draw, "weather")
    key = draw.choice(["city", "city", "location"])
    name = draw.choice(["get_weather", "get_weather", "weather", "current_weather"])
    tool = declare(name, draw.choice(["Gets the weather in a city.", "Current weather for a city.", "Get the current weather."]),
                   {key: ("string", _maybe(draw, draw.choice(["City name", "The city"])))})
    user = draw.wording("What is the weather in {}?|How is the weather in {}?|Is it warm in {}?|weather in {}?|Is it cold in {} today?|"
                        "Will I need a coat in {}?|What's the weather like in {}?|Weather in {}?|How cold is it in {}?|How is the weather in {} today?|"
                        "Please tell me the weather in {}.|What is the weather in {} now?|Tell me how the weather is in {}.",
                        "Tell me the weather in {}.|How warm is it in {}?|What is the weather in {} today?")
    sky, degrees = draw.choice("sunny cloudy rainy windy snowy clear foggy".split()), draw.number(-9, 39)
    answer = f"It is {sky} in {city} with {degrees} degrees."
    return tool, user.format(city), {key: city}, {"sky": sky, "temp": degrees}, answer


def get_time(draw):
    city = _city(draw, "time")
    key = draw.choice(["city", "city", "place"])
    name = draw.choice(["get_time", "get_time", "current_time", "clock"])
    tool = declare(name, draw.choice(["Gets the time in a city.", "Current time in a city.", "Tells the time."]),
                   {key: ("string", _maybe(draw, draw.choice(["City name", "The city"])))})
    user = draw.wording("What time is it in {}?|Tell me the time in {}.|What is the time in {}?|time in {}?|How late is it in {}?|Time in {}?|"
                        "Please tell me the time in {}.|Can you tell me what time it is in {}?|What time is it in {} now?|What is the time now in {}?",
                        "Can you tell me the time in {}?|What time is it now in {}?")
    clock = f"{draw.number(0, 23):02d}:{draw.number(0, 59):02d}"
    return tool, user.format(city), {key: city}, {"time": clock}, f"It is {clock} in {city}."


def set_timer(draw):
    minutes = draw.number(1, 90)
    key = draw.choice(["minutes", "minutes", "duration"])
    tool = declare(draw.choice(["set_timer", "set_timer", "start_timer"]), draw.choice(["Sets a timer.", "Starts a timer for some minutes."]),
                   {key: ("integer", _maybe(draw, "Number of minutes"))})
    user = draw.wording("Set a timer for {} minutes.|Start a timer of {} minutes.|Wake me in {} minutes.|Timer: {} minutes|"
                        "Please start a timer for {} minutes.|I need a timer for {} minutes.|Give me a timer of {} minutes.",
                        "Please set a timer for {} minutes.|I need a timer of {} minutes.")
    return tool, user.format(minutes), {key: minutes}, {"status": "ok"}, f"The timer is set for {minutes} minutes."


def send_message(draw):
    name = draw.choice(NAMES)
    while True:
        text = " ".join(draw.choice(WORDS) for _ in range(draw.number(1, 3)))
        if draw.owns(f"message{text}"):
            break
    who, what = draw.choice([("to", "text"), ("to", "text"), ("name", "message")])
    tool = declare(draw.choice(["send_message", "send_message", "send_text"]), draw.choice(["Sends a message to a person.", "Sends a text."]),
                   {who: ("string", _maybe(draw, "The person")), what: ("string", _maybe(draw, "The text"))})
    user = draw.wording("Send {} the message: {}|Tell {}: {}|Write to {}: {}|Send to {}: {}|Send {} the text: {}|"
                        "Message to {}: {}|Text {}: {}|Send {} a message: {}", "Send {} this text: {}|Message {}: {}")
    return tool, user.format(name, text), {who: name, what: text}, {"status": "sent"}, f"The message to {name} is sent."


def find(draw):
    while True:
        query = " ".join(draw.choice(WORDS) for _ in range(draw.number(1, 2)))
        if draw.owns(f"find{query}"):
            break
    key = draw.choice(["query", "query", "text"])
    tool = declare(draw.choice(["search", "search", "find", "look_up"]), draw.choice(["Searches the web.", "Finds pages.", "Searches for a text."]),
                   {key: ("string", _maybe(draw, "What to search"))})
    user = draw.wording("Search for {}.|Look up {}.|Find {}.|Search: {}|Please find {}.|Please look for {}.|Look for {}.|"
                        "Search the web for {}.|Can you search for {}?", "Please search for {}.|Please look up {}.")
    count = draw.number(2, 99)
    return tool, user.format(query), {key: query}, {"pages": count}, f"I found {count} pages about {query}."


TOOLS = (calculator, calculator, get_weather, get_weather, get_time, get_time, set_timer, send_message, find)


def _result_content(draw, result):
    """A result as programs hand it over: native fields, JSON text, or plain text of one value."""
    form = draw.number(0, 2)
    if form == 0:
        return result
    if form == 1 or len(result) > 1:
        return json.dumps(result)
    return str(next(iter(result.values())))


def tool_round(draw, make_round, answered):
    """A request with 1 to 3 tools declared: the right call, or (`answered`) the use of its result."""
    kind = draw.choice(TOOLS)
    tool, user, arguments, result, answer = kind(draw)
    pool = [other for other in dict.fromkeys(TOOLS) if other is not kind]
    others = [other(draw)[0] for other in draw.sample(pool, draw.choice([0, 0, 1, 1, 2]))]
    tools = [tool, *others]
    draw.rng.shuffle(tools)
    call = {"id": "call_1", "type": "function",
            "function": {"name": tool["function"]["name"], "arguments": arguments}}
    if not answered:
        return make_round(user, tools=tools, tool_calls=[call])
    after = [{"role": "assistant", "content": "", "tool_calls": [call]},
             {"role": "tool", "tool_call_id": "call_1", "content": _result_content(draw, result)}]
    return make_round(user, answer, tools=tools, after=after)


def any_tools(draw):
    """One or two declarations of different tools."""
    kinds = draw.sample(dict.fromkeys(TOOLS), draw.number(1, 2))
    return [kind(draw)[0] for kind in kinds]
