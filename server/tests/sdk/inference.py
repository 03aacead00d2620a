"""Chat completions and responses through OpenAI's SDK in strict mode: python inference.py BASE_URL BASE_MODEL"""

import asyncio
import json
import sys
from typing import Literal

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

URL, BASE = sys.argv[1:3]
strict = OpenAI(base_url=URL, api_key="sk-local", max_retries=0, _strict_response_validation=True)
plain = OpenAI(base_url=URL, api_key="sk-local", max_retries=0)
MESSAGES = [{"role": "system", "content": "Answer briefly. " * 20}, {"role": "user", "content": "Make a form."}]
done = 0


class Person(BaseModel):
    name: str = Field(max_length=6)
    age: int = Field(ge=0, le=120)
    mood: Literal["good", "bad"] | None


def check(what, holds, seen=None):
    global done
    if not holds:
        sys.exit(f"FAILED: {what}: {seen!r}")
    done += 1


def refused(what, kind, call):
    try:
        call()
    except kind as error:
        check(what, True)
        return error
    sys.exit(f"FAILED: {what}: no {kind.__name__}")


def ask(client=strict, **more):
    return client.chat.completions.create(model=BASE, messages=MESSAGES, **({"max_tokens": 24, "seed": 9} | more))


def chat():
    whole = ask(logprobs=True, top_logprobs=5, n=2)
    for choice in whole.choices:
        tokens = choice.logprobs.content
        check("logprobs", all(len(token.top_logprobs) == 5 and token.logprob <= 0 for token in tokens), tokens)
        text = bytes(byte for token in tokens for byte in token.bytes).decode("utf-8", "replace")
        check("bytes make the text", text == choice.message.content, (text, choice.message.content))
    chunks = list(ask(logprobs=True, top_logprobs=5, n=2, stream=True))
    for index, choice in enumerate(whole.choices):
        streamed = [token for chunk in chunks for part in chunk.choices if part.index == index and part.logprobs
                    for token in part.logprobs.content]
        check("streamed logprobs", streamed == choice.logprobs.content, streamed)
    again = ask()
    check("cached", again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1, again.usage)
    check("bias", ask(logit_bias={"100": 100}).choices[0].message.content == "a" * 24)
    check("penalties", ask(temperature=0, frequency_penalty=2, presence_penalty=1).choices[0].message.content)
    check("options without effect", ask(user="me", store=True, metadata={"a": "b"}, reasoning_effort="low",
                                        parallel_tool_calls=False, extra_body={"nonsense": 1}))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    refused("tools", openai.BadRequestError, lambda: ask(tools=[tool]))
    check("tools that are not called", ask(tools=[tool], tool_choice="none"))
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]}]
    error = refused("image", openai.BadRequestError, lambda: strict.chat.completions.create(model=BASE, messages=image))
    check("says what", "image_url" in error.message and error.param == "messages", error)
    long = [{"role": "user", "content": "x" * 10_000}]
    error = refused("too long", openai.BadRequestError, lambda: strict.chat.completions.create(model=BASE, messages=long))
    check("its code", error.code == "context_length_exceeded", error.code)


def formats():
    for client in (strict, plain):
        parsed = client.chat.completions.parse(model=BASE, messages=MESSAGES, response_format=Person, max_tokens=600)
        check("parsed", isinstance(parsed.choices[0].message.parsed, Person), parsed)
    try:
        json_object = ask(response_format={"type": "json_object"}, max_tokens=2000, temperature=2)
        if json_object.choices[0].finish_reason == "stop":
            check("an object", isinstance(json.loads(json_object.choices[0].message.content), dict), json_object)
    except openai.APIError as error:
        sys.exit(f"FAILED: json_object: {error}")
    refused("cut off", openai.LengthFinishReasonError, lambda: plain.chat.completions.parse(
        model=BASE, messages=MESSAGES, response_format=Person, max_tokens=2))
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "not": {}}}}
    error = refused("schema", openai.BadRequestError, lambda: ask(response_format=bad))
    check("says why", error.param == "response_format" and "not" in error.message, error)
    with plain.chat.completions.stream(model=BASE, messages=MESSAGES, response_format=Person, max_tokens=600) as stream:
        check("events", "content.done" in {event.type for event in stream})
        check("parsed stream", isinstance(stream.get_final_completion().choices[0].message.parsed, Person))


def responses():
    create = lambda client=strict, **more: client.responses.create(
        **({"model": BASE, "input": "Make a form.", "max_output_tokens": 20, "temperature": 0} | more))
    first = create(instructions="Be brief.", metadata={"k": "v"})
    check("response", first.output_text and first.metadata == {"k": "v"} and first.usage.output_tokens > 0, first)
    check("incomplete", first.status == "completed" or first.incomplete_details.reason == "max_output_tokens", first)
    second = create(previous_response_id=first.id, input="And now?")
    check("goes on", second.previous_response_id == first.id and second.usage.input_tokens > first.usage.input_tokens)
    check("retrieved", strict.responses.retrieve(first.id).output_text == first.output_text)
    strict.responses.delete(first.id)
    refused("deleted", openai.NotFoundError, lambda: strict.responses.retrieve(first.id))
    refused("previous gone", openai.NotFoundError, lambda: create(previous_response_id=first.id))
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Make a form."}]}]
    check("items", create(input=items).output_text == create().output_text)
    refused("tools", openai.BadRequestError, lambda: create(tools=[{"type": "web_search"}]))
    likely = create(include=["message.output_text.logprobs"], top_logprobs=2)
    check("logprobs", len(likely.output[0].content[0].logprobs[0].top_logprobs) == 2, likely.output)
    for client in (strict, plain):
        parsed = client.responses.parse(model=BASE, input="Who?", text_format=Person, max_output_tokens=600)
        check("parsed", isinstance(parsed.output_parsed, Person), parsed)
    events = list(create(stream=True))
    check("numbered", [event.sequence_number for event in events] == list(range(len(events))))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    check("streamed", text == create().output_text == events[-1].response.output_text, text)
    with plain.responses.stream(model=BASE, input="Make a form.", max_output_tokens=20, temperature=0) as stream:
        check("helper", stream.until_done() and stream.get_final_response().output_text == text)


async def together():
    client = AsyncOpenAI(base_url=URL, api_key="sk-local", max_retries=0, _strict_response_validation=True)
    one = lambda seed: client.chat.completions.create(model=BASE, messages=MESSAGES, max_tokens=24, seed=seed)
    answers = await asyncio.gather(*(one(seed) for seed in range(12)))
    alone = [(await one(seed)).choices[0].message.content for seed in range(12)]
    check("company changes nothing", [a.choices[0].message.content for a in answers] == alone)


chat()
formats()
responses()
asyncio.run(together())
print(f"{done} checks of inference hold with openai {openai.__version__}")
