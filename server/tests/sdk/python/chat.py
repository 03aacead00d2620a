"""Chat completions with the base model, the tuned one and a checkpoint."""

import json
import math
from typing import Literal

import openai
import pydantic

from session import QUESTION, text_of


class Form(pydantic.BaseModel):
    kind: Literal["form", "table"]
    wide: bool
    columns: Literal[1, 2, 3]


def chat(session, report):
    """10 chat"""
    ask = session.ask
    models = (session.base, session.tuned, session.checkpoint)
    texts = {model: text_of(ask(model, temperature=0)) for model in models}
    base_says = texts[session.base]
    report.check("training shows", base_says not in (texts[session.tuned], texts[session.checkpoint]), texts)
    report.check("greedy repeats", text_of(ask(session.tuned, temperature=0)) == texts[session.tuned])
    report.check("a seed repeats", text_of(ask(seed=5)) == text_of(ask(seed=5)))
    report.check("the alias", ask("ui-agent").model == session.base)
    two = ask(n=2, seed=1)
    report.check("n", [choice.index for choice in two.choices] == [0, 1], two)
    report.check("n differ", two.choices[0].message.content != two.choices[1].message.content, two)
    usage = two.usage
    report.check("usage", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0, usage)
    short = ask(max_tokens=None, max_completion_tokens=3, seed=1)
    seen = (short.choices[0].finish_reason, short.usage.completion_tokens)
    report.check("max_completion_tokens", seen == ("length", 3), short)
    whole = text_of(ask(seed=9))
    cut = whole.split(whole[5:8])[0]
    stopped = ask(seed=9, stop=[whole[5:8]])
    report.check("stop", (text_of(stopped), stopped.choices[0].finish_reason) == (cut, "stop"), stopped)
    report.check("stop as one string", text_of(ask(seed=9, stop=whole[5:8])) == cut)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Make a form."}]}]
    report.check("content in parts", text_of(ask(seed=9, messages=parts)) == whole)
    for role in ("system", "developer"):
        told = ask(messages=[{"role": role, "content": "Be brief."}] + QUESTION)
        report.check(role, told.usage.prompt_tokens > usage.prompt_tokens, told.usage)
    report.refused("temperature 3", openai.BadRequestError, lambda: ask(temperature=3), param="temperature")
    report.refused("no messages", openai.BadRequestError, lambda: ask(messages=[]), param="messages")
    long = [{"role": "user", "content": "x" * 20_000}]
    code = "context_length_exceeded"
    report.refused("too long", openai.BadRequestError, lambda: ask(messages=long), code=code)
    for stream in (False, True):
        unknown = lambda: ask("nobody", stream=stream)
        report.refused(f"unknown model, stream={stream}", openai.NotFoundError, unknown, code="model_not_found")


def options(session, report):
    """10 options of chat"""
    ask = session.ask
    long = [{"role": "system", "content": "Answer briefly. " * 20}] + QUESTION
    ask(messages=long)
    again = ask(messages=long).usage
    cached = again.prompt_tokens_details.cached_tokens
    report.check("the same prompt again is cached", cached == again.prompt_tokens - 1, again)
    report.check("logit_bias", text_of(ask(logit_bias={"100": 100})) == "a" * 24)
    report.check("penalties", text_of(ask(temperature=0, frequency_penalty=2, presence_penalty=1)))
    without_effect = {"user": "me", "store": True, "metadata": {"a": "b"}, "reasoning_effort": "low"}
    report.check("options without effect", ask(**without_effect, extra_body={"nonsense": 1}))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    report.refused("tools", openai.BadRequestError, lambda: ask(tools=[tool]))
    report.check("tools that are not called", ask(tools=[tool], tool_choice="none"))
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    error = report.refused(
        "image", openai.BadRequestError, lambda: ask(messages=[{"role": "user", "content": [image]}]), param="messages"
    )
    report.check("image: says what", error and "image_url" in error.message, error)


def logprobs(session, report):
    """10 logprobs"""
    reply = session.ask(temperature=0, logprobs=True, top_logprobs=3)
    tokens = reply.choices[0].logprobs.content
    report.check("one a token", len(tokens) in (reply.usage.completion_tokens, reply.usage.completion_tokens - 1), reply)
    text = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    report.check("they spell the answer", text == text_of(reply), (text, text_of(reply)))
    for token in tokens:
        top = [alternative.logprob for alternative in token.top_logprobs]
        ordered = top == sorted(top, reverse=True) and len(top) == 3
        mass = sum(math.exp(logprob) for logprob in top)
        # Greedy: what is said is what is likeliest.
        if not (ordered and mass <= 1.000001 and math.isclose(token.logprob, top[0], abs_tol=1e-4)):
            report.fail("top_logprobs", token)
            break
    else:
        report.check("top_logprobs", True)
    chunks = list(session.ask(temperature=0, logprobs=True, stream=True))
    parts = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
    streamed = [token for part in parts for token in part.content]
    report.check("streamed", [token.token for token in streamed] == [token.token for token in tokens], streamed)
    report.refused("top_logprobs 21", openai.BadRequestError, lambda: session.ask(logprobs=True, top_logprobs=21))


def streaming(session, report):
    """11 streaming"""
    whole = text_of(session.ask(seed=9))
    for usage in (False, True):
        options = {"stream_options": {"include_usage": True}} if usage else {}
        chunks = list(session.ask(seed=9, stream=True, **options))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        report.check(f"the same text, usage={usage}", text == whole, (text, whole))
        report.check("one id", len({chunk.id for chunk in chunks}) == 1)
        report.check("role first", chunks[0].choices[0].delta.role == "assistant", chunks[0])
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        report.check("a reason at the end only", reasons[-1] and not any(reasons[:-1]), reasons)
        bare = [chunk for chunk in chunks if not chunk.choices]
        report.check(f"usage={usage}", len(bare) == usage, chunks[-1])
        if usage:
            report.check("its figures", chunks[-1].usage.completion_tokens > 0, chunks[-1])
    with session.client.chat.completions.stream(
        model=session.base, messages=QUESTION, max_tokens=24, seed=9
    ) as stream:
        kinds = {event.type for event in stream}
        report.check("helper's events", {"chunk", "content.delta", "content.done"} <= kinds, kinds)
        report.check("helper's text", text_of(stream.current_completion_snapshot) == whole)
    two = list(session.ask(seed=9, n=2, stream=True))
    report.check("n", {choice.index for chunk in two for choice in chunk.choices} == {0, 1}, two[-1])
    left = session.ask(stream=True, max_tokens=4000)
    next(iter(left))
    left.close()
    report.check("goes on after one who left", text_of(session.ask(seed=9)) == whole)


def schema(session, report):
    """11 answers in a form"""
    for model in (session.base, session.tuned):
        reply = session.client.chat.completions.parse(
            model=model, messages=QUESTION, response_format=Form, max_tokens=200, temperature=1.5, seed=4
        )
        report.check("parse", isinstance(reply.choices[0].message.parsed, Form), reply)
    with session.client.chat.completions.stream(
        model=session.base, messages=QUESTION, response_format=Form, max_tokens=200, seed=5
    ) as stream:
        final = stream.get_final_completion()
        report.check("streamed", isinstance(final.choices[0].message.parsed, Form), final)
    free = session.ask(response_format={"type": "json_object"}, max_tokens=2000, temperature=2, seed=1).choices[0]
    if free.finish_reason == "stop":
        report.check("json_object", isinstance(json.loads(free.message.content), dict), free)
    cut = lambda: session.client.chat.completions.parse(
        model=session.base, messages=QUESTION, response_format=Form, max_tokens=2
    )
    try:
        report.check("cut off", False, cut())
    except openai.LengthFinishReasonError:
        report.check("cut off", True)
    for schema in ({"type": "nothing"}, {"type": "object", "not": {}}):
        bad = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
        ask = lambda: session.ask(response_format=bad)
        report.refused(f"schema {schema}", openai.BadRequestError, ask, param="response_format")


CALLS = [chat, options, logprobs, streaming, schema]
