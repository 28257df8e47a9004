"""The real openai package of PyPI."""

import json
import threading
import time

import openai
import pytest

from fake import line
from gateway import KEY, MODEL

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]


def client_of(gateway, key=KEY, **options):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, **{"max_retries": 0, "timeout": 20, **options})


@pytest.fixture
def client(gateway):
    with client_of(gateway) as client:
        yield client


def test_a_whole_answer(client, fake):
    fake.script(transcript="chat-plain")
    answer = client.chat.completions.create(model=MODEL, messages=HI)
    assert answer.choices[0].message.content.startswith("Hello ! I am a scripted model")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (22, 17, 39)
    assert answer.choices[0].finish_reason == "stop" and len(answer._request_id) == 24


def test_a_stream(client, fake):
    fake.script(transcript="chat-stream-plain")
    chunks = list(client.chat.completions.create(model=MODEL, messages=HI, stream=True,
                                                 stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).startswith("Hello ! I am")
    assert chunks[-1].usage.total_tokens == 39
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_thinking_is_kept_beside_the_content(client, fake):
    fake.script(transcript="chat-thinking")
    message = client.chat.completions.create(model=MODEL, messages=HI).choices[0].message
    assert message.content == "Answer : forty-two indeed!!"
    assert message.reasoning == message.reasoning_content == "Okay, the user greets me..\n"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_round_of_tools(client, fake, streamed):
    fake.script(transcript="chat-stream-tool" if streamed else "chat-tool")
    if streamed:
        with client.chat.completions.stream(model=MODEL, messages=HI, tools=TOOLS) as stream:
            stream.until_done()
            first = stream.get_final_completion().choices[0]
    else:
        first = client.chat.completions.create(model=MODEL, messages=HI, tools=TOOLS).choices[0]
    assert first.finish_reason == "tool_calls"
    call = first.message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    fake.script(transcript="chat-plain")
    again = HI + [first.message.model_dump(exclude_none=True),
                  {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert client.chat.completions.create(model=MODEL, messages=again, tools=TOOLS).choices[0].message.content
    assert fake.body["messages"][-1]["tool_name"] == "get_weather"


def test_structured_output(client, fake):
    import pydantic

    class Answer(pydantic.BaseModel):
        a: int
    fake.script(transcript="chat-schema-thinking")
    parsed = client.chat.completions.parse(model=MODEL, messages=HI, response_format=Answer).choices[0].message.parsed
    assert parsed == Answer(a=0)
    assert fake.body["format"]["properties"]["a"]["type"] == "integer"


def test_models(client):
    assert {model.id for model in client.models.list()} == {"qwen3:32b", "slow:latest", "loop:latest"}
    assert client.models.retrieve(MODEL).id == MODEL


@pytest.mark.timing
def test_leaving_a_stream_closes_ollamas_side_within_100_ms(client, fake):
    fake.script(tokens=1000, token_ms=10)
    stream = client.chat.completions.create(model=MODEL, messages=HI, stream=True)
    next(iter(stream))
    left = time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e6
    stream.close()
    assert fake.wait_chats(1, "aborted")[0]["ended_ms"] - left < 100


@pytest.mark.timing
def test_a_timeout_of_the_client_closes_ollamas_side(gateway, fake):
    fake.script(silent=True)
    with client_of(gateway, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model=MODEL, messages=HI)
    left = time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e6
    assert fake.wait_chats(1, "aborted")[0]["ended_ms"] - left < 100


def test_errors_are_the_packages_own_classes(gateway, client, fake, start_gateway, start_fake):
    with client_of(gateway, key="wrong") as stranger, pytest.raises(openai.AuthenticationError) as caught:
        stranger.chat.completions.create(model=MODEL, messages=HI)
    assert caught.value.code == "invalid_api_key" and len(caught.value.request_id) == 24
    assert "invalid api key" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HI, temperature="hot")
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody-knows", messages=HI)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a" * 100000}])
    assert caught.value.code == "context_length_exceeded"
    limited = start_gateway(rate_limit={"enabled": True, "max_requests": 1, "window_seconds": 60})
    assert limited.chat().status == 200
    with client_of(limited) as late, pytest.raises(openai.RateLimitError) as caught:
        late.chat.completions.create(model=MODEL, messages=HI)
    assert caught.value.response.headers["retry-after"] == "60"
    fake.script(status=500, body="x", content_type="text/plain")
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=MODEL, messages=HI)
    dead = start_fake()
    door = start_gateway(dead)
    dead.kill()
    with client_of(door) as alone, pytest.raises(openai.InternalServerError) as caught:
        alone.chat.completions.create(model=MODEL, messages=HI)
    assert caught.value.status_code == 503


def test_an_error_midway_is_raised(client, fake):
    fake.script_lines(line("a"), {"error": "the runner died"})
    with pytest.raises(openai.APIError, match="the runner died"):
        list(client.chat.completions.create(model=MODEL, messages=HI, stream=True))


def test_heartbeats_keep_an_impatient_reader(start_gateway, fake):
    """Its read timeout is between bytes: comments every 100 ms outlast a prefill of two seconds."""
    gateway = start_gateway(heartbeat_interval="100ms", commit_after="100ms")
    fake.script(tokens=3, head_delay_ms=2000)
    with client_of(gateway, timeout=1) as client:
        chunks = list(client.chat.completions.create(model=MODEL, messages=HI, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_many_clients_at_once(gateway):
    results = []

    def ask(number):
        with client_of(gateway) as client:
            answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": f"say:{number}"}])
            results.append(answer.choices[0].message.content == str(number))
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 10
