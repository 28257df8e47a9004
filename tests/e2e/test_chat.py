"""/v1/chat/completions, not streamed: what Ollama receives for what the caller sent, and the other way round."""

import base64
import json
import re
import time

import pytest

from fake import call, last_line, line
from gateway import KEY, MODEL, NULL, chat_body
from wire import wait_for

USER = {"role": "user", "content": "hi"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and so on").decode()
DEFAULT_OPTIONS = {"temperature": 1, "top_p": 1}


def weather_tool(name="get_weather", **parameters):
    return {"type": "function", "function": {"name": name, "description": "weather of a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], **parameters}}}


def sent(gateway, fake, **fields):
    """What Ollama receives for a chat with these fields."""
    answer = gateway.chat(**fields)
    assert answer.status == 200, answer
    return fake.body


def one_answer(fake, *lines):
    """Ollama's whole answer to a request that is not streamed."""
    fake.script(status=200, content_type="application/json; charset=utf-8", body=json.dumps(lines[0]))


# --- what Ollama receives -------------------------------------------------------------------------------------

def test_the_smallest_chat_carries_ollamas_own_defaults(gateway, fake):
    assert sent(gateway, fake) == {
        "model": MODEL, "messages": [USER], "stream": False, "options": DEFAULT_OPTIONS, "truncate": False, "shift": False}


def test_a_stream_is_asked_for_as_a_stream(gateway, fake):
    gateway.stream(stream_options={"include_usage": True})
    assert fake.body == {"model": MODEL, "messages": [USER], "stream": True, "options": DEFAULT_OPTIONS,
                         "truncate": False, "shift": False}


OPTIONS = [
    ({"max_tokens": 7}, {"num_predict": 7}),
    ({"max_completion_tokens": 8}, {"num_predict": 8}),
    ({"max_completion_tokens": 8, "max_tokens": 7}, {"num_predict": 8}),
    ({"max_tokens": 100.0}, {"num_predict": 100}),
    ({"temperature": 0}, {"temperature": 0}),
    ({"temperature": 0.25, "top_p": 0.5}, {"temperature": 0.25, "top_p": 0.5}),
    ({"temperature": NULL, "top_p": NULL, "max_tokens": NULL, "seed": NULL, "stop": NULL}, {}),
    ({"seed": 123}, {"seed": 123}),
    ({"seed": -1}, {"seed": -1}),
    ({"stop": "\n"}, {"stop": ["\n"]}),
    ({"stop": ["\n", "stop", "three", "four", "five"]}, {"stop": ["\n", "stop", "three", "four", "five"]}),
    ({"frequency_penalty": 1.5, "presence_penalty": -2}, {"frequency_penalty": 1.5, "presence_penalty": -2}),
]


@pytest.mark.parametrize("fields,options", OPTIONS, ids=[json.dumps(fields, default=lambda _: None) for fields, _ in OPTIONS])
def test_samplers_become_options(gateway, fake, fields, options):
    assert sent(gateway, fake, **fields)["options"] == {**DEFAULT_OPTIONS, **options}


IGNORED = {"user": "alice", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "prompt_cache_key": "k",
           "safety_identifier": "s", "verbosity": "low", "parallel_tool_calls": False, "logit_bias": {},
           "keep_alive": 0, "num_ctx": 99, "options": {"num_ctx": 7, "num_gpu": 0}, "format": "json", "truncate": True,
           "shift": True, "raw": True, "template": "x", "context": [1], "n": 1, "modalities": ["text"],
           "stream_options": {"include_usage": True}, "never_heard_of": {"deep": [{"er": None}]}}


@pytest.mark.parametrize("field", IGNORED)
def test_a_field_that_is_not_ollamas_business_never_reaches_it(gateway, fake, field):
    assert sent(gateway, fake, **{field: IGNORED[field]}) == {
        "model": MODEL, "messages": [USER], "stream": False, "options": DEFAULT_OPTIONS, "truncate": False, "shift": False}


FORMATS = [
    ({"type": "text"}, None),
    ({"type": "json_object"}, "json"),
    ({"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {
        "type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "string", "enum": ["x", "é"]}},
        "required": ["z"], "additionalProperties": False}}},
     {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "string", "enum": ["x", "é"]}},
      "required": ["z"], "additionalProperties": False}),
]


@pytest.mark.parametrize("response_format,wanted", FORMATS, ids=[f["type"] for f, _ in FORMATS])
def test_response_format_becomes_format(gateway, fake, response_format, wanted):
    assert sent(gateway, fake, response_format=response_format).get("format") == wanted


def test_a_schema_keeps_the_order_of_its_members(gateway, fake):
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in ("zebra", "apple", "mango")}}
    sent(gateway, fake, response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    assert list(fake.seen()[-1]["body_json"]["format"]["properties"]) == ["zebra", "apple", "mango"] or \
        re.search("zebra.*apple.*mango", fake.seen()[-1]["body"])


EFFORTS = [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "max"),
           ("xhigh", "max"), ("ultra", "max"), ("", None)]


@pytest.mark.parametrize("effort,think", EFFORTS)
@pytest.mark.parametrize("knob", ["reasoning_effort", "reasoning"])
def test_reasoning_effort_becomes_think(gateway, fake, knob, effort, think):
    fields = {"reasoning_effort": effort} if knob == "reasoning_effort" else {"reasoning": {"effort": effort}}
    assert sent(gateway, fake, **fields).get("think") == think


def test_reasoning_wins_over_reasoning_effort(gateway, fake):
    assert sent(gateway, fake, reasoning={"effort": "high"}, reasoning_effort="none")["think"] == "high"


KNOBS = [({"think": False}, False), ({"think": True}, True), ({"think": "high"}, "high"), ({"enable_thinking": False}, False),
         ({"chat_template_kwargs": {"enable_thinking": False}}, False), ({"thinking": {"type": "disabled"}}, False),
         ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, True)]


@pytest.mark.parametrize("fields,think", KNOBS, ids=[json.dumps(fields) for fields, _ in KNOBS])
def test_the_other_knobs_of_thinking_are_understood(gateway, fake, fields, think):
    assert sent(gateway, fake, **fields)["think"] == think


def test_logprobs_are_passed_on(gateway, fake):
    body = sent(gateway, fake, logprobs=True, top_logprobs=5)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)


def messages_for(gateway, fake, *messages, **fields):
    return sent(gateway, fake, messages=list(messages), **fields)["messages"]


def test_developer_is_system(gateway, fake):
    assert messages_for(gateway, fake, {"role": "developer", "content": "be brief"}, USER) == [
        {"role": "system", "content": "be brief"}, USER]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_text_parts_are_joined_with_a_blank_line(gateway, fake, role):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}]
    got = messages_for(gateway, fake, {"role": role, "content": parts}, USER)[0]
    assert got == {"role": "system" if role == "developer" else role, "content": "one\n\ntwo"}


def test_images_are_collected_beside_the_text(gateway, fake, start_fake, start_gateway):
    ollama = start_fake()
    ollama.set(models=[{"name": MODEL, "capabilities": ["completion", "tools", "thinking", "vision"]}])
    seeing = start_gateway(ollama)
    urls = [f"data:image/{kind};base64,{PNG}" for kind in ("png", "jpeg", "jpg", "webp")] + [f"data:;base64,{PNG}"]
    parts = [{"type": "text", "text": "what is it"}]
    parts += [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
    parts += [{"type": "image_url", "image_url": urls[0]}]
    assert messages_for(seeing, ollama, {"role": "user", "content": parts}) == [
        {"role": "user", "content": "what is it", "images": [PNG] * 6}]


def test_an_image_for_a_model_that_cannot_see_is_unsupported(gateway):
    answer = gateway.chat(messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]}])
    assert (answer.status, answer.code) == (400, "unsupported")


ASKED = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "call_abcd1234", "type": "function", "function": {"name": "exec", "arguments": '{"z":1,"a":{"b":[1.50,"é"]}}'}}]}


def test_a_tool_round_keeps_call_name_and_id(gateway, fake):
    got = messages_for(gateway, fake, USER, ASKED, {"role": "tool", "tool_call_id": "call_abcd1234", "content": "done"})
    assert got[1]["role"] == "assistant" and got[1].get("content", "") == ""
    calls = got[1]["tool_calls"]
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("call_abcd1234", "exec", {"z": 1, "a": {"b": [1.5, "é"]}})]
    assert list(calls[0]["function"]["arguments"]) == ["z", "a"] or '"z"' in fake.seen()[-1]["body"]
    assert got[2] == {"role": "tool", "content": "done", "tool_name": "exec", "tool_call_id": "call_abcd1234"}


def test_a_tool_answer_in_parts_keeps_name_and_id(gateway, fake):
    got = messages_for(gateway, fake, USER, ASKED, {"role": "tool", "tool_call_id": "call_abcd1234", "content": [
        {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})
    assert got[2]["tool_name"] == "exec" and got[2]["tool_call_id"] == "call_abcd1234"
    assert re.fullmatch(r"a\s*b", got[2]["content"])


def test_a_tool_answer_finds_its_name_by_the_last_call_of_that_id(gateway, fake):
    def asking(name):
        return {"role": "assistant", "content": "", "tool_calls": [
            {"id": "same", "type": "function", "function": {"name": name, "arguments": "{}"}}]}

    def told():
        return {"role": "tool", "tool_call_id": "same", "content": "x"}
    got = messages_for(gateway, fake, USER, asking("first"), told(), asking("second"), told())
    assert [message["tool_name"] for message in got if message["role"] == "tool"] == ["first", "second"]


def test_a_tool_answer_may_bring_its_own_name(gateway, fake):
    got = messages_for(gateway, fake, USER, {"role": "tool", "name": "lookup", "content": "x"})
    assert got[1]["tool_name"] == "lookup"


def test_role_function_is_a_tool_answer(gateway, fake):
    got = messages_for(gateway, fake, USER, {"role": "function", "name": "lookup", "content": "x"})
    assert (got[1]["role"], got[1]["tool_name"], got[1]["content"]) == ("tool", "lookup", "x")


def test_empty_arguments_are_an_empty_object(gateway, fake):
    asked = json.loads(json.dumps(ASKED))
    asked["tool_calls"][0]["function"]["arguments"] = ""
    assert messages_for(gateway, fake, USER, asked, USER)[1]["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "reasoning_text", "thinking"])
def test_reasoning_in_the_history_becomes_thinking(gateway, fake, name):
    got = messages_for(gateway, fake, USER, {**ASKED, name: "let me think"},
                       {"role": "tool", "tool_call_id": "call_abcd1234", "content": "x"})
    assert got[1]["thinking"] == "let me think"


def test_a_history_may_end_in_any_role(gateway, fake):
    for last in (USER, {"role": "assistant", "content": "I was saying"}, {"role": "system", "content": "s"}):
        assert messages_for(gateway, fake, USER, last)[-1] == last


def test_refusal_parts_are_text(gateway, fake):
    got = messages_for(gateway, fake, USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, USER)
    assert got[1]["content"] == "no"


def test_tools_are_passed_as_they_are(gateway, fake):
    tool = weather_tool()
    assert sent(gateway, fake, tools=[tool])["tools"] == [tool]


@pytest.mark.parametrize("choice", ["auto", "required", None])
def test_auto_and_required_send_all_tools(gateway, fake, choice):
    tools = [weather_tool("a"), weather_tool("b")]
    assert [t["function"]["name"] for t in sent(gateway, fake, tools=tools, tool_choice=choice)["tools"]] == ["a", "b"]


def test_tool_choice_none_sends_no_tools(gateway, fake):
    assert not sent(gateway, fake, tools=[weather_tool()], tool_choice="none").get("tools")


def test_a_named_tool_is_the_only_one_sent(gateway, fake):
    tools = [weather_tool("a"), weather_tool("b")]
    body = sent(gateway, fake, tools=tools, tool_choice={"type": "function", "function": {"name": "b"}})
    assert [tool["function"]["name"] for tool in body["tools"]] == ["b"]


def test_tools_that_ollamas_decoder_would_refuse_are_mended(gateway, fake):
    odd = weather_tool(type=["object", "null"], properties={
        "anything": True, "never": False, "maybe": {"type": ["string", "null"]}, "list": {"type": "array", "items": {}}})
    parameters = sent(gateway, fake, tools=[odd])["tools"][0]["function"]["parameters"]
    assert parameters["type"] == "object"
    assert parameters["properties"]["anything"] == {}
    assert isinstance(parameters["properties"]["never"], dict)
    assert parameters["properties"]["maybe"] == {"type": ["string", "null"]}


def test_tools_without_parameters_are_served(gateway, fake):
    assert gateway.chat(tools=[{"type": "function", "function": {"name": "now"}}]).status == 200


@pytest.mark.parametrize("text", ['"\\/\b\f\n\r\t', "\u0000\u0001\u001f\u007f", "\u0085\u2028\u2029", "é世🚀", "<&>", "\ufeff", "\ud83d\ude00"
                                  .encode("utf-16", "surrogatepass").decode("utf-16")])
def test_any_text_arrives_as_it_was_sent(gateway, fake, text):
    assert sent(gateway, fake, content=text)["messages"][0]["content"] == text


def test_ollama_sees_its_own_host_and_nothing_of_the_caller(gateway, fake):
    gateway.chat(headers={"Origin": "https://evil.example", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4",
                          "User-Agent": "x", "traceparent": "00-76934b67666a9035ea4fe3edd9f5d8d8-0f90ed0c70517551-01"})
    names = {name.lower(): value for name, value in fake.seen()[-1]["headers"]}
    assert names["host"] == f"127.0.0.1:{fake.port}"
    assert not {"origin", "cookie", "authorization", "x-api-key", "x-forwarded-for"} & set(names)


def test_a_configured_model_is_renamed_and_carries_its_context_always(start_gateway, fake):
    gateway = start_gateway(models={"fast": {"model": MODEL, "num_ctx": 8192, "keep_alive": "1h"}})
    for fields in ({}, {"num_ctx": 77, "keep_alive": 0}):
        answer = gateway.chat(model="fast", **fields)
        assert answer.json["model"] == "fast"
        assert fake.body["model"] == MODEL
        assert fake.body["options"]["num_ctx"] == 8192
        assert fake.body["keep_alive"] == "1h"
    assert gateway.chat(model=MODEL).status == 404


# --- what the caller receives ---------------------------------------------------------------------------------

def test_a_plain_answer_whole(gateway, fake):
    fake.script(transcript="chat-plain")
    before = int(time.time())
    answer = gateway.chat()
    body = answer.json
    assert answer.header("Content-Type").startswith("application/json")
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9_-]{16,}", body["id"])
    assert before <= body["created"] <= time.time()
    assert body["object"] == "chat.completion" and body["model"] == MODEL
    assert body["choices"] == [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "content": "Hello ! I am a scripted model . 你好，世界。 Emoji 🚀 done.\n"}}] or \
        body["choices"][0]["message"]["content"] == "Hello ! I am a scripted model . 你好，世界。 Emoji 🚀 done.\n"
    assert body["usage"] == {"prompt_tokens": 22, "completion_tokens": 17, "total_tokens": 39}
    assert not re.search("registry|created_at|duration|remote_|T14:17", answer.text)


def test_two_answers_have_two_ids(gateway):
    assert gateway.chat().json["id"] != gateway.chat().json["id"]


def test_thinking_comes_under_both_names(gateway, fake):
    fake.script(transcript="chat-thinking")
    message = gateway.chat().json["choices"][0]["message"]
    assert message["content"] == "Answer : forty-two indeed!!"
    assert message["reasoning"] == message["reasoning_content"] == "Okay, the user greets me..\n"


def test_no_thinking_no_reasoning_keys(gateway, fake):
    fake.script(transcript="chat-plain")
    assert not {"reasoning", "reasoning_content"} & set(gateway.chat().json["choices"][0]["message"])


def test_tool_calls_carry_their_arguments_as_a_string(gateway, fake):
    one_answer(fake, last_line(tool_calls=[call(index=2, arguments={"z": 1.50, "a": "é\u2028"}),
                                           call("other", {"x": None}, 7, "call_2")]))
    choice = gateway.chat(tools=[weather_tool()]).json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    calls = choice["message"]["tool_calls"]
    assert [(c["id"], c["index"], c["type"], c["function"]["name"]) for c in calls] == [
        ("call_0a5ztg28", 2, "function", "get_weather"), ("call_2", 7, "function", "other")]
    assert json.loads(calls[0]["function"]["arguments"]) == {"z": 1.5, "a": "é\u2028"}
    assert list(json.loads(calls[0]["function"]["arguments"])) == ["z", "a"]
    assert json.loads(calls[1]["function"]["arguments"]) == {"x": None}


FINISHES = [("stop", False, "stop"), ("length", False, "length"), ("stop", True, "tool_calls"), ("length", True, "length"),
            ("load", False, "stop"), ("unload", False, "stop"), ("never-heard-of", False, "stop")]


@pytest.mark.parametrize("reason,has_call,finish", FINISHES)
def test_finish_reasons_are_those_of_openai(gateway, fake, reason, has_call, finish):
    one_answer(fake, last_line("x", reason, **({"tool_calls": [call()]} if has_call else {})))
    assert gateway.chat(tools=[weather_tool()]).finish == finish


def test_logprobs_are_under_content(gateway, fake):
    said = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [
        {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}, {"token": "\u0000", "logprob": -45.25, "bytes": [0]}]}]
    one_answer(fake, last_line("Hi", logprobs=said))
    assert gateway.chat(logprobs=True, top_logprobs=2).json["choices"][0]["logprobs"]["content"] == said


def test_counts_left_out_are_zero(gateway, fake):
    one_answer(fake, line("x", True, done_reason="stop"))
    assert gateway.chat().json["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_an_answer_that_ended_without_its_end_is_finished(gateway):
    """The model `loop` stops in the middle, as Ollama does when a model repeats itself."""
    answer = gateway.chat(model="loop")
    assert answer.status == 200 and answer.finish == "stop" and " loop" in answer.content


def test_the_name_is_the_one_the_caller_used(gateway):
    assert gateway.chat(model="Qwen3:32B").json["model"] == "Qwen3:32B"


def test_stripped_fields_are_gone(start_gateway):
    gateway = start_gateway(response_filter={"strip": ["model", "created"]})
    assert not {"model", "created"} & set(gateway.chat().json)
    for chunk in gateway.stream(stream_options={"include_usage": True}).chunks:
        assert not {"model", "created"} & set(chunk)


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_every_route_is_there_with_and_without_v1(gateway, prefix):
    assert gateway.chat(path=f"{prefix}/chat/completions").status == 200
    assert gateway.get(f"{prefix}/models").status == 200
    assert gateway.get(f"{prefix}/models/{MODEL}").status == 200


def test_a_query_is_no_part_of_the_path(gateway):
    assert gateway.chat(path="/v1/chat/completions?api-version=1").status == 200


@pytest.mark.parametrize("length", [1, 1000, 20000])
def test_an_echo_comes_back_whole(gateway, length):
    text = ("aé世🚀\"\\\n" * length)[:length]
    assert gateway.chat("say:" + text).content == text
    assert gateway.stream("say:" + text).content == text


# --- models ---------------------------------------------------------------------------------------------------

def test_models_are_what_ollama_lists(gateway):
    listing = gateway.get("/v1/models").json
    assert listing["object"] == "list"
    found = {model["id"]: model for model in listing["data"]}
    assert set(found) == {"qwen3:32b", "slow:latest", "loop:latest"}
    assert found["qwen3:32b"]["object"] == "model" and found["qwen3:32b"]["owned_by"] == "library"
    assert isinstance(found["qwen3:32b"]["created"], int)


@pytest.mark.parametrize("written", [MODEL, "qwen3%3A32b", "slow", "slow:latest", "SLOW"])
def test_a_model_is_found_by_its_name(gateway, written):
    answer = gateway.get(f"/v1/models/{written}")
    assert answer.status == 200
    assert answer.json["id"] == written.replace("%3A", ":")
    assert answer.json["object"] == "model"


def test_an_unknown_model_is_not_found(gateway):
    answer = gateway.get("/v1/models/nobody-knows")
    assert (answer.status, answer.code) == (404, "model_not_found")


def test_no_models_is_an_empty_list(start_gateway, start_fake):
    ollama = start_fake()
    ollama.set(models=[])
    assert start_gateway(ollama).get("/v1/models").json == {"object": "list", "data": []}


def test_cloud_models_are_not_listed(start_gateway, start_fake):
    ollama = start_fake()
    ollama.set(models=[{"name": name, "capabilities": ["completion"]} for name in
                       ("plain:latest", "big:120b-cloud", "team/named:1b", "other:cloud")])
    listing = start_gateway(ollama).get("/v1/models").json["data"]
    assert {model["id"]: model["owned_by"] for model in listing} == {"plain:latest": "library", "team/named:1b": "team"}


def test_a_keys_listing_shows_only_what_it_may_use(start_gateway):
    gateway = start_gateway(auth={"valid_keys": [KEY, {"key": "choosy", "models": ["slow"]}]})
    assert [model["id"] for model in gateway.get("/v1/models", key="choosy").json["data"]] == ["slow:latest"]
    assert gateway.get("/v1/models/slow", key="choosy").status == 200
    assert gateway.get(f"/v1/models/{MODEL}", key="choosy").status in (403, 404)


def test_a_model_that_is_new_at_ollama_is_found_on_the_first_miss(start_gateway, start_fake):
    ollama = start_fake()
    gateway = start_gateway(ollama)
    assert gateway.chat(model="brand-new").status == 404
    ollama.set(models=[{"name": "brand-new:latest", "capabilities": ["completion"]}])
    wait_for(lambda: gateway.chat(model="brand-new").status == 200, 3, "the new model (the list is fresh every 5 s at least)")


def test_configured_models_are_listed_by_their_own_names(start_gateway):
    gateway = start_gateway(models={"fast": {"model": MODEL}})
    assert [model["id"] for model in gateway.get("/v1/models").json["data"]] == ["fast"]


def test_a_body_of_a_browser_form_is_not_taken_for_json(gateway):
    answer = gateway.call("POST", "/v1/chat/completions", "model=qwen3", {"Content-Type": "application/x-www-form-urlencoded"})
    assert 400 <= answer.status < 500


def test_a_request_without_content_type_is_served(gateway):
    body = json.dumps(chat_body())
    wire = gateway.wire().send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n{body}")
    assert wire.answer().status == 200
