"""Gemma 4's turn format, as far as this model is taught it: messages to text and back.

Messages have the OpenAI shape. The small variant of the format is used: with thinking off no empty
thought is written ahead of the answer. `segments` marks which text the model is to produce itself.
"""

import re

QUOTE = '<|"|>'
TURN_END = "<turn|>"
CALL_END = "<tool_call|>"
OPEN_THOUGHT = "<|channel>thought\n"
PLACEHOLDERS = {"image": "<|image|>", "audio": "<|audio|>"}
"""What stands for a picture or sound in the text, before its soft tokens are counted."""


def format_value(value):
    """One value as tool calls and responses write it: bare keys, no escaping, keys sorted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{QUOTE}{value}{QUOTE}"
    if isinstance(value, dict):
        return format_fields(value)
    if isinstance(value, list):
        return "[" + ",".join(map(format_value, value)) + "]"
    return str(value)


def format_fields(fields):
    """A mapping as `{key:value,…}` with keys sorted without regard to case."""
    pairs = sorted(fields.items(), key=lambda item: item[0].lower())
    return "{" + ",".join(f"{key}:{format_value(value)}" for key, value in pairs) + "}"


def format_declaration(tool):
    """A flat OpenAI function declaration as Gemma 4 writes it."""
    function = tool["function"]
    parameters = function["parameters"]
    properties = []
    for key, schema in sorted(parameters["properties"].items(), key=lambda item: item[0].lower()):
        parts = []
        if schema.get("description"):
            parts.append(f"description:{format_value(schema['description'])}")
        if schema.get("enum"):
            parts.append(f"enum:{format_value(schema['enum'])}")
        parts.append(f"type:{format_value(schema['type'].upper())}")
        properties.append(f"{key}:{{{','.join(parts)}}}")
    required = format_value(parameters["required"])
    return (f"<|tool>declaration:{function['name']}{{description:{format_value(function['description'])},"
            f"parameters:{{properties:{{{','.join(properties)}}},required:{required},"
            f"type:{format_value('OBJECT')}}}}}<tool|>")


def format_call(call):
    """One tool call with its control tokens."""
    function = call["function"]
    return f"<|tool_call>call:{function['name']}{format_fields(function['arguments'])}{CALL_END}"


def format_response(name, content):
    """One tool result; a text stays a text under the key `value`."""
    fields = content if isinstance(content, dict) else {"value": content}
    return f"<|tool_response>response:{name}{format_fields(fields)}<tool_response|>"


def content_text(content):
    """A message's content, a text or a list of parts, as the prompt has it."""
    if isinstance(content, str):
        return content.strip()
    return "".join(PLACEHOLDERS.get(part["type"]) or part["text"].strip() for part in content)


def segments(example, with_answer=True):
    """A conversation as a list of (text, taught): taught text is what the model must say.

    `example` has `messages`, `tools`, `enable_thinking` and `answer`, the assistant message that
    `messages` leads to. Without `with_answer` the list is the prompt a program would feed.
    """
    thinking = example["enable_thinking"]
    messages = list(example["messages"])
    text = "<bos>"
    out = []
    if thinking or example["tools"] or messages[0]["role"] == "system":
        text += "<|turn>system\n" + ("<|think|>\n" if thinking else "")
        if messages[0]["role"] == "system":
            text += messages.pop(0)["content"].strip()
        text += "".join(map(format_declaration, example["tools"])) + "<turn|>\n"
    in_model_turn = False
    called = None
    for message in messages:
        role = message["role"]
        if role == "user":
            text += f"<|turn>user\n{content_text(message['content'])}{TURN_END}\n"
            in_model_turn = False
        elif role == "tool":
            text += format_response(called, message["content"])
        else:
            if not in_model_turn:
                text += "<|turn>model\n"
            if message.get("tool_calls"):
                if message.get("reasoning"):
                    text += f"{OPEN_THOUGHT}{message['reasoning']}\n<channel|>"
                call = "".join(map(format_call, message["tool_calls"]))
                called = message["tool_calls"][-1]["function"]["name"]
                out += [(text, False), (call + "<|tool_response>", not thinking)]
                text, in_model_turn = "", True
            else:
                out += [(text, False), (message["content"] + TURN_END, not thinking)]
                text = "\n"
    out.append((text, False))
    out = _join_tool_responses(out)
    prompt_tail = ""
    if not in_model_turn:
        prompt_tail = "<|turn>model\n"
    elif thinking:
        prompt_tail = OPEN_THOUGHT
    out.append((prompt_tail, False))
    if with_answer:
        out.append((answer_text(example, already_thinking=prompt_tail == OPEN_THOUGHT), True))
    return out


def _join_tool_responses(parts):
    """The call's taught end token opens the response: do not write it twice."""
    joined = []
    for text, taught in parts:
        if joined and joined[-1][0].endswith("<|tool_response>") and text.startswith("<|tool_response>"):
            text = text[len("<|tool_response>"):]
        joined.append((text, taught))
    return joined


def answer_text(example, already_thinking=False):
    """The taught answer: thought, then calls or content, with the token that stops generation."""
    answer = example["answer"]
    text = ""
    if example["enable_thinking"]:
        text = ("" if already_thinking else OPEN_THOUGHT) + answer["reasoning"] + "\n<channel|>"
    if answer.get("tool_calls"):
        return text + "".join(map(format_call, answer["tool_calls"])) + "<|tool_response>"
    return text + answer["content"] + TURN_END


def prompt_text(example):
    """The text a program feeds the model for this conversation."""
    return "".join(text for text, _ in segments(example, with_answer=False))


def parse_output(text):
    """Splits generated text into content and the calls' source text; thoughts are dropped."""
    if "<channel|>" in text:
        text = text.split("<channel|>", 1)[1]
    calls = re.findall(r"<\|tool_call>(.*?)<tool_call\|>", text, re.DOTALL)
    content = re.sub(r"<\|tool_call>.*?<tool_call\|>", "", text, flags=re.DOTALL)
    for stop in (TURN_END, "<|tool_response>", "<eos>"):
        content = content.split(stop, 1)[0]
    return content.strip(), calls


def is_right(example, text):
    """Whether generated text gives the content of `expect`, or exactly its calls."""
    content, calls = parse_output(text)
    expected = example["expect"]
    wanted = [format_call(call)[len("<|tool_call>"):-len(CALL_END)] for call in expected.get("tool_calls") or []]
    return calls == wanted and content == (expected.get("content") or "").strip()
