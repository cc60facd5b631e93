#!/usr/bin/env python3
"""openai_client.py - the official client (PyPI: openai) against `tandem serve` with the demo model.

    test/openai_client.py build/tandem

Exits 0 when every claim holds, 77 when the client is not installed. Claims are functions; each
prints one line.
"""
import concurrent.futures, json, os, re, subprocess, sys, tempfile, time, traceback, urllib.error, urllib.request

try:
    import openai
except ImportError:
    print("skipped: the openai client is not installed (pip install openai)")
    sys.exit(77)

KEY = "sk-test-1"
SUM = [{"role": "user", "content": "What is 12 + 7?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12},
                                                    "unit": {"enum": ["c", "f"]}},
                   "required": ["city", "unit"]}}}


class Server:
    """The server on a port of its own choice, with one key."""

    def __init__(self, tandem, *options):
        self.keys = tempfile.NamedTemporaryFile("w", suffix=".keys")
        self.keys.write(KEY + " tester\n")
        self.keys.flush()
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([tandem, "serve", "--port", "0", "--api-key-file", self.keys.name, *options],
                                        stderr=self.log, stdout=self.log)
        self.url = self.wait_url()
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key=KEY, max_retries=0, timeout=60)

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def wait_url(self):
        for _ in range(600):
            found = re.search(r"http://[\d.:]+\d", self.text())
            if found:
                return found.group(0)
            if self.process.poll() is not None:
                sys.exit("the server ended:\n" + self.text())
            time.sleep(0.05)
        sys.exit("the server did not come up in 30 s:\n" + self.text())

    def get(self, path, key=KEY, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        if key:
            request.add_header("Authorization", "Bearer " + key)
        try:
            with urllib.request.urlopen(request, timeout=60) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def chat(self, messages=SUM, **fields):
        fields.setdefault("temperature", 0)
        fields.setdefault("max_tokens", 48)
        return self.client.chat.completions.create(model=fields.pop("model", self.model()), messages=messages, **fields)

    def complete(self, prompt="What is", **fields):
        fields.setdefault("temperature", 0)
        fields.setdefault("max_tokens", 12)
        return self.client.completions.create(model=self.model(), prompt=prompt, **fields)

    def model(self):
        if not hasattr(self, "name"):
            self.name = self.client.models.list().data[0].id
        return self.name

    def metric(self, name):
        _, text = self.get("/metrics")
        values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                  if re.match(re.escape(name) + r"[ {]", line)]
        assert values, name + " is not among the metrics"
        return sum(values)


def refused(kind, call):
    try:
        call()
    except kind as e:
        return e
    raise AssertionError("was not refused")


# ------------------------------------------------------------------------------ claims

def models_are_listed(s):
    found = s.client.models.list().data
    assert found and found[0].object == "model"
    assert s.client.models.retrieve(found[0].id).id == found[0].id


def a_chat_is_answered(s):
    r = s.chat()
    assert r.object == "chat.completion" and r.id and r.created > 1e9 and r.model == s.model()
    c = r.choices[0]
    assert c.index == 0 and c.message.role == "assistant" and "19" in c.message.content
    assert c.finish_reason == "stop"
    assert r.usage.prompt_tokens > 5 and r.usage.completion_tokens > 0
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    assert r.system_fingerprint


def a_stream_says_the_same(s):
    whole = s.chat(STORY)
    parts, usage, finish, first = [], None, None, None
    for chunk in s.chat(STORY, stream=True, stream_options={"include_usage": True}):
        assert chunk.object == "chat.completion.chunk"
        usage = chunk.usage or usage
        for c in chunk.choices:
            first = first or c.delta.role
            parts.append(c.delta.content or "")
            finish = c.finish_reason or finish
    assert "".join(parts) == whole.choices[0].message.content
    assert first == "assistant" and finish == whole.choices[0].finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert sum(p != "" for p in parts) > 3, "the answer came in one piece"


def a_seed_gives_the_same_and_another_something_else(s):
    def say(seed):
        return s.chat(STORY, temperature=1.2, seed=seed).choices[0].message.content
    assert say(1) == say(1)
    assert len({say(i) for i in range(4)}) > 1


def several_choices_are_those_of_their_seeds(s):
    many = s.chat(STORY, n=3, seed=5, temperature=1)
    assert [c.index for c in many.choices] == [0, 1, 2]
    assert len({c.message.content for c in many.choices}) > 1
    again = s.chat(STORY, n=3, seed=5, temperature=1)
    assert [c.message.content for c in again.choices] == [c.message.content for c in many.choices]
    assert many.choices[0].message.content == s.chat(STORY, seed=5, temperature=1).choices[0].message.content


def neighbours_change_nothing(s):
    def say(i):
        return s.chat(STORY if i % 2 else SUM, temperature=0.9, seed=i % 4, max_tokens=30).choices[0].message.content
    alone = [say(i) for i in range(4)]
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        together = list(pool.map(say, range(48)))
    assert all(together[i] == alone[i % 4] for i in range(48))


def logprobs_come_with_the_tokens(s):
    r = s.chat(logprobs=True, top_logprobs=4)
    content = r.choices[0].logprobs.content
    assert "".join(t.token for t in content) == r.choices[0].message.content
    for t in content:
        assert t.logprob <= 0 and len(t.top_logprobs) == 4
        assert t.top_logprobs[0].logprob >= t.top_logprobs[3].logprob
        assert t.token == t.top_logprobs[0].token, "greedy takes the likeliest"
        assert bytes(t.bytes).decode("utf-8", "replace") == t.token


def stop_texts_and_lengths_end_an_answer(s):
    text = s.chat(STORY, max_tokens=60).choices[0].message.content
    word = text.split()[4]
    r = s.chat(STORY, stop=[word], max_tokens=60)
    assert r.choices[0].finish_reason == "stop" and r.choices[0].message.content == text[:text.index(word)]
    r = s.chat(STORY, max_tokens=5)
    assert r.choices[0].finish_reason == "length" and r.usage.completion_tokens == 5
    r = s.chat(STORY, max_completion_tokens=4, max_tokens=None)
    assert r.usage.completion_tokens == 4
    streamed = "".join(c.choices[0].delta.content or "" for c in s.chat(STORY, stop=[word], max_tokens=60, stream=True)
                       if c.choices)
    assert streamed == text[:text.index(word)]


def completions_take_texts_and_tokens(s):
    one = s.complete()
    assert one.object == "text_completion" and one.choices[0].text
    two = s.complete(["What is", "The capital"])
    assert len(two.choices) == 2 and two.choices[0].text == one.choices[0].text
    status, body = s.get("/tokenize", body={"prompt": "What is"})
    assert status == 200, body
    ids = json.loads(body)["tokens"]
    assert s.complete(ids).choices[0].text == one.choices[0].text
    assert s.complete([ids, ids]).choices[1].text == one.choices[0].text
    status, body = s.get("/detokenize", body={"tokens": ids})
    assert status == 200 and "What is" in json.loads(body)["prompt"]
    assert s.complete(echo=True).choices[0].text == "What is" + one.choices[0].text
    lp = s.complete(logprobs=2).choices[0].logprobs
    assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset)
    streamed = "".join(c.choices[0].text for c in s.complete(stream=True))
    assert streamed == one.choices[0].text


def what_vllm_adds_is_understood(s):
    r = s.chat(STORY, max_tokens=20, extra_body={"ignore_eos": True, "min_tokens": 20, "top_k": 1,
                                                 "repetition_penalty": 1.05, "min_p": 0.1})
    assert r.usage.completion_tokens == 20
    first = s.complete(max_tokens=1, logprobs=0).choices[0]
    ids = json.loads(s.get("/tokenize", body={"prompt": "What is" + first.text})[1])["tokens"]
    r = s.complete(extra_body={"stop_token_ids": [ids[-1]]})
    assert r.choices[0].finish_reason == "stop" and r.usage.completion_tokens == 1
    r = s.complete(extra_body={"allowed_token_ids": [ids[0]]}, max_tokens=3)
    assert len(set(json.loads(s.get("/tokenize", body={"prompt": r.choices[0].text, "add_special_tokens": False})[1])["tokens"])) == 1
    r = s.complete(extra_body={"bad_words": [first.text]}, max_tokens=1)
    assert r.choices[0].text != first.text
    r = s.complete(logit_bias={str(ids[0]): 100}, max_tokens=2, frequency_penalty=0.1, presence_penalty=0.1)
    assert r.usage.completion_tokens == 2
    status, body = s.get("/v1/completions", body={"model": s.model(), "prompt": "What is 1 + 1?", "max_tokens": 1,
                                                 "prompt_logprobs": 1})
    assert status == 200 and "prompt_logprobs" in body


def json_is_json(s):
    r = s.chat(response_format={"type": "json_object"}, max_tokens=200, temperature=0.8, seed=3)
    if r.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(r.choices[0].message.content), dict)
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}, "sure": {"type": "boolean"}},
              "required": ["sum", "sure"], "additionalProperties": False}
    r = s.chat(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}},
               max_tokens=100)
    got = json.loads(r.choices[0].message.content)
    assert set(got) == {"sum", "sure"} and isinstance(got["sum"], int) and isinstance(got["sure"], bool)
    r = s.chat(extra_body={"structured_outputs": {"choice": ["red", "green"]}})
    assert r.choices[0].message.content in ("red", "green")
    r = s.chat(extra_body={"structured_outputs": {"regex": "[0-9]{3}-[a-f]{2}"}})
    assert re.fullmatch("[0-9]{3}-[a-f]{2}", r.choices[0].message.content)


def tools_are_called(s):
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        r = s.chat(tools=[WEATHER], tool_choice=choice, max_tokens=120)
        c = r.choices[0]
        call = c.message.tool_calls[0]
        assert c.finish_reason == "tool_calls" and call.type == "function" and call.id
        assert call.function.name == "get_weather"
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == {"city", "unit"} and arguments["unit"] in ("c", "f")
    name, arguments = "", ""
    for chunk in s.chat(tools=[WEATHER], tool_choice="required", max_tokens=120, stream=True):
        for c in chunk.choices:
            for call in c.delta.tool_calls or []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert name == "get_weather" and json.loads(arguments)["unit"] in ("c", "f")


def bad_requests_name_their_field(s):
    e = refused(openai.BadRequestError, lambda: s.chat(temperature=-1))
    assert e.status_code == 400 and e.param == "temperature" and e.type == "invalid_request_error"
    assert refused(openai.BadRequestError, lambda: s.chat(n=10**6)).param == "n"
    assert refused(openai.BadRequestError, lambda: s.chat(extra_body={"top_p": "much"})).param == "top_p"
    refused(openai.BadRequestError, lambda: s.chat([]))
    refused(openai.BadRequestError, lambda: s.complete("word " * 100000))
    refused(openai.NotFoundError, lambda: s.chat(model="another"))
    status, body = s.get("/v1/nothing")
    assert status == 404 and "error" in json.loads(body)
    assert s.chat(extra_body={"no_such_field": 1}).choices, "unknown fields are ignored"


def keys_are_asked_for(s):
    other = openai.OpenAI(base_url=s.url + "/v1", api_key="sk-wrong", max_retries=0)
    refused(openai.AuthenticationError, lambda: other.models.list())
    for path in ("/health", "/ready"):
        assert s.get(path, key=None)[0] == 200, path
    assert s.get("/metrics", key=None)[0] == 401


def figures_are_given(s):
    assert "tandem" in s.get("/version")[1]
    plan = json.loads(s.get("/plan")[1])
    assert plan["tp"] >= 1 and "model" in plan
    assert s.metric("tandem:generation_tokens_total") > 100
    assert s.metric("vllm:generation_tokens_total") > 100
    assert s.metric("vllm:num_requests_running") == 0
    assert s.metric("vllm:time_to_first_token_seconds_count") > 10


def a_client_that_leaves_frees_its_place(s):
    stream = s.chat(STORY, stream=True, max_tokens=200, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    for _ in range(100):
        if s.metric("vllm:num_requests_running") == 0:
            return
        time.sleep(0.05)
    raise AssertionError("it still runs after 5 s")


def a_shared_beginning_is_computed_once(s):
    long = [{"role": "system", "content": "You add numbers. " * 12}, *SUM]
    s.chat(long)
    r = s.chat(long)
    assert r.usage.prompt_tokens_details.cached_tokens > r.usage.prompt_tokens // 2


CLAIMS = [models_are_listed, a_chat_is_answered, a_stream_says_the_same, a_seed_gives_the_same_and_another_something_else,
          several_choices_are_those_of_their_seeds, neighbours_change_nothing, logprobs_come_with_the_tokens,
          stop_texts_and_lengths_end_an_answer, completions_take_texts_and_tokens, what_vllm_adds_is_understood,
          json_is_json, tools_are_called, bad_requests_name_their_field, keys_are_asked_for, figures_are_given,
          a_client_that_leaves_frees_its_place, a_shared_beginning_is_computed_once]


def main():
    server, bad = Server(sys.argv[1], *sys.argv[2:]), 0
    for claim in CLAIMS:
        try:
            claim(server)
            print("ok -", claim.__name__)
        except Exception:
            bad += 1
            print("not ok -", claim.__name__)
            traceback.print_exc(file=sys.stdout)
    server.process.terminate()
    if server.process.wait(timeout=30):
        bad += 1
        print("not ok - it ends well when told to:", server.process.returncode)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
