#!/usr/bin/env python3
"""test_serve_live.py - a running `tandem serve` with the demo model, as operators and rude clients meet it.

    test/test_serve_live.py build/tandem

Claims are functions, each with a server of its own; each prints one line. Standard library only.
SOAK_SECONDS: how long the last one goes on (5).
"""
import http.client, json, os, random, shutil, signal, socket, ssl, subprocess, sys, tempfile, threading, time, traceback, warnings

CHAT = json.dumps({"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 8, "temperature": 0})
LONG = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 400, "ignore_eos": True, "n": 8}


class OnSocket(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Server:
    """tandem serve on a unix socket, with an admin socket beside it."""

    def __init__(self, *options, **environment):
        self.folder = tempfile.mkdtemp(prefix="tandem-test-")
        self.main, self.admin, self.log = (os.path.join(self.folder, name) for name in ("main", "admin", "log"))
        where = [] if "--port" in options else ["--unix-socket", self.main]
        self.process = subprocess.Popen(
            [TANDEM, "serve", *where, "--admin-socket", self.admin, "--access-log", self.log, *options],
            stderr=open(os.path.join(self.folder, "words"), "w"), stdout=subprocess.DEVNULL, env={**os.environ, **environment})
        for _ in range(1200):
            if "ready " in self.words():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise Exception("the server did not come up:\n" + self.words())

    def words(self):
        return open(os.path.join(self.folder, "words")).read()

    def ask(self, method, path, body=None, to=None, headers={}):
        connection = OnSocket(to or self.main)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, answer.headers

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(self.main)
        return s

    def running(self):
        return json.loads(self.ask("GET", "/requests", to=self.admin)[1])

    def wait_running(self, n):
        for _ in range(600):
            if len(self.running()) == n:
                return
            time.sleep(0.05)
        raise Exception(f"{len(self.running())} requests run, not {n}")

    def well(self):
        status, text, _ = self.ask("POST", "/v1/chat/completions", CHAT)
        assert status == 200, text
        return json.loads(text)["choices"][0]["message"]["content"]

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(60)
        words = self.words()
        shutil.rmtree(self.folder)
        assert code == 0, f"exit status {code}: {words}"


def request_text(body, more=""):
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}").encode()


# --------------------------------------------------------------------------------- claims

def clients_may_leave_at_every_byte():
    s = Server()
    want = s.well()
    text = request_text(CHAT[:-1] + ', "stream": true}')
    for n in range(len(text) + 1):
        c = s.connect()
        c.sendall(text[:n])
        c.close()
    c = s.connect()  # and while the answer comes
    c.sendall(text)
    whole = b""
    while b"[DONE]" not in whole:
        whole += c.recv(65536)
    c.close()
    for n in range(0, len(whole), 97):
        c = s.connect()
        c.sendall(text)
        got = 0
        while got < n:
            got += len(c.recv(min(97, n - got)))
        c.close()
    s.wait_running(0)
    assert s.well() == want
    s.end()


def hostile_bodies_are_refused_by_name():
    s = Server()
    want = s.well()
    deep = "[" * 100000
    message = '"messages":[{"role":"user","content":"a"}]'
    for body in ["", "{", deep, '{"messages":' + deep, "null", "[]", '"x"', "{" + message + ',"n":1000000}',
                 "{" + message + ',"temperature":NaN}', "{" + message + ',"temperature":-1}', "{" + message + ',"top_p":1e308}',
                 "{" + message + ',"max_tokens":-5}', "{" + message + ',"max_tokens":1e400}', "{" + message + ',"seed":1e999}',
                 "{" + message + ',"logit_bias":{"99999999":1}}', "{" + message + ',"stop_token_ids":[-1]}',
                 "{" + message + ',"top_logprobs":1000,"logprobs":true}', '{"messages":[{"role":"user","content":"\ud800"}]}',
                 '{"messages":[{"role":"user","content":"' + "word " * 20000 + '"}]}', '{"messages":[]}', '{"messages":"x"}',
                 "{" + message + ',"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":' + '{"items":' * 2000 + "{}" + "}" * 2000 + "}}}",
                 "{" + message + ',"guided_regex":"("}']:
        raw = body.encode("utf-8", "surrogatepass")
        status, text, _ = s.ask("POST", "/v1/chat/completions", raw)
        assert status == 400 and json.loads(text)["error"]["message"], (status, body[:80], text[:200])
    huge = "{" + message + ',"guided_regex":"(a{1,1000}){1,1000}b","max_tokens":8}'
    assert s.ask("POST", "/v1/chat/completions", huge)[0] in (200, 400)
    assert s.ask("POST", "/v1/chat/completions", b"x" * (17 << 20))[0] == 413
    assert s.ask("PUT", "/v1/models")[0] in (405, 501)
    assert s.ask("GET", "/v1/chat/completions")[0] == 405
    assert s.ask("GET", "/../../etc/passwd")[0] == 404
    assert s.well() == want
    s.end()


def too_many_are_told_when_to_come_back():
    s = Server("--max-seqs", "2", "--max-queue", "3")
    seen, lock = [], threading.Lock()

    def one():
        status, text, headers = s.ask("POST", "/v1/chat/completions", json.dumps({**LONG, "n": 1, "max_tokens": 200}))
        with lock:
            seen.append((status, headers.get("Retry-After"), text))
    crowd = [threading.Thread(target=one) for _ in range(40)]
    for t in crowd:
        t.start()
    for t in crowd:
        t.join()
    refused = [x for x in seen if x[0] == 429]
    assert refused and len(refused) + sum(x[0] == 200 for x in seen) == 40, [x[0] for x in seen]
    assert sum(x[0] == 200 for x in seen) >= 2
    assert all(int(x[1]) >= 1 and json.loads(x[2])["error"]["code"] == "rate_limit_exceeded" for x in refused)
    s.well()
    s.end()


def ten_thousand_requests_are_answered_or_refused_and_memory_stays():
    s = Server("--max-queue", "64", "--max-connections", "256", ASAN_OPTIONS="quarantine_size_mb=8")
    s.well()
    memory = lambda: int(open(f"/proc/{s.process.pid}/statm").read().split()[1]) * 4096
    before, counts, lock = memory(), {}, threading.Lock()

    def some():
        for _ in range(625):
            try:
                status = s.ask("POST", "/v1/chat/completions", json.dumps({**LONG, "n": 64, "max_tokens": 1}))[0]
            except (ConnectionError, http.client.HTTPException):
                status = 0
            with lock:
                counts[status] = counts.get(status, 0) + 1
    crowd = [threading.Thread(target=some) for _ in range(16)]
    for t in crowd:
        t.start()
    for t in crowd:
        t.join()
    assert set(counts) <= {200, 429} and sum(counts.values()) == 10000, counts
    assert counts[429] > 0 and counts[200] > 0, counts
    assert memory() - before < 64 << 20, (before, memory())
    s.well()
    s.end()


HOME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def slow_hardware(folder):
    """A profile that says every step takes a second more than it would."""
    with open(os.path.join(HOME, "profiles", "epyc-9755.json")) as f:
        profile = json.load(f)
    profile["step_s"]["value"] = 1
    path = os.path.join(folder, "slow.json")
    with open(path, "w") as f:
        json.dump(profile, f)
    return path


def steps_are_compared_with_the_hardware_profile():
    with tempfile.TemporaryDirectory() as folder:
        s = Server("--hardware", slow_hardware(folder))
        body = json.dumps({"prompt": "One two three", "max_tokens": 160, "ignore_eos": True})
        assert s.ask("POST", "/v1/completions", body)[0] == 200
        value = dict(line.rsplit(" ", 1) for line in s.ask("GET", "/metrics")[1].splitlines() if line[0] != "#")
        label = '{model_name="demo",dtype="bf16",rows="1"}'
        predicted = float(value[f"tandem:step_predicted_seconds_by_rows_total{label}"])
        measured = float(value[f"tandem:step_seconds_by_rows_total{label}"])
        assert predicted > 159 and 0 < measured < predicted, (predicted, measured)
        assert 0 < float(value['tandem:step_price_ratio{model_name="demo"}']) < 1
        assert "times what the hardware profile says" in s.words(), s.words()
        s.end()


def every_figure_is_in_the_manual():
    with tempfile.TemporaryDirectory() as folder:
        s = Server("--tp", "2", "--hardware", slow_hardware(folder))
    s.well()
    text = open(os.path.join(HOME, "docs", "SERVING.md")).read()
    names = {line.split()[2].split(":")[-1] for line in s.ask("GET", "/metrics")[1].splitlines() if line.startswith("# TYPE")}
    assert len(names) > 40, names
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing, missing
    s.end()


def beginnings_are_shared_by_one_key_and_salt_only():
    with tempfile.TemporaryDirectory() as folder:
        keys = os.path.join(folder, "keys")
        open(keys, "w").write("sk-one\nsk-two\n")
        s = Server("--api-key-file", keys)

        def cached(key, **more):
            body = json.dumps({"prompt": "once upon a time " * 20, "max_tokens": 1, **more})
            text = s.ask("POST", "/v1/completions", body, headers={"Authorization": "Bearer " + key})[1]
            return json.loads(text)["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
        seen = [cached("sk-one"), cached("sk-one"), cached("sk-two"), cached("sk-two"),
                cached("sk-one", cache_salt="a"), cached("sk-one", cache_salt="a"), cached("sk-one", cache_salt="b")]
        assert seen == [False, True, False, True, False, True, False], seen
        s.end()


def a_timeout_ends_an_answer():
    s = Server()
    status, text, _ = s.ask("POST", "/v1/chat/completions", json.dumps({**LONG, "n": 32, "timeout": 0.02}))
    choices = json.loads(text)["choices"]
    assert status == 200 and {c["finish_reason"] for c in choices} == {"length"}, text[:200]
    assert json.loads(text)["usage"]["completion_tokens"] < 32 * 400
    s.end()


def the_operator_sees_and_ends_requests():
    s = Server()
    c = s.connect()
    c.sendall(request_text(json.dumps({**LONG, "stream": True}), "X-Request-Id: mine\r\n"))
    c.recv(100)
    s.wait_running(1)
    one = s.running()[0]
    assert one["id"] == "mine" and one["stream"] and one["choices"] == 8 and one["prompt_tokens"] > 0, one
    assert s.ask("DELETE", "/requests/other", to=s.admin)[0] == 404
    assert s.ask("DELETE", "/requests/mine", to=s.admin)[0] == 200
    rest = b""
    while b"[DONE]" not in rest:
        rest += c.recv(65536)
    s.wait_running(0)
    assert s.ask("GET", "/requests")[0] == 404  # only on the admin's socket
    assert s.ask("POST", "/drain")[0] == 404
    assert s.ask("GET", "/v1/models", to=s.admin)[0] == 404
    assert oct(os.stat(s.admin).st_mode & 0o777) == "0o600"
    s.end()


def draining_loses_nothing():
    for how in ("signal", "socket"):
        s = Server()
        answers = []

        def one(stream):
            status, text, _ = s.ask("POST", "/v1/chat/completions", json.dumps({**LONG, "stream": stream, "logprobs": True, "top_logprobs": 5}))
            answers.append((status, text, stream))
        crowd = [threading.Thread(target=one, args=(i % 2 == 0,)) for i in range(4)]
        for t in crowd:
            t.start()
        s.wait_running(4)
        if how == "socket":
            assert s.ask("POST", "/drain", to=s.admin)[0] == 200
            code = s.process.wait(60)
            assert code == 0, s.words()
        else:
            s.end()
        for t in crowd:
            t.join()
        for status, text, stream in answers:
            assert status == 200
            if stream:
                assert text.rstrip().endswith("data: [DONE]"), text[-100:]
            else:
                assert len(json.loads(text)["choices"]) == 8
        assert len(answers) == 4


def a_drain_that_takes_too_long_ends_answers_early():
    s = Server("--drain-seconds", "0", "--max-seqs", "1")
    c = s.connect()
    c.sendall(request_text(json.dumps({**LONG, "n": 64, "stream": True})))
    c.recv(100)
    s.process.send_signal(signal.SIGTERM)
    rest = b""
    while True:  # it has to be read, or there is no more room for what the answers end with
        piece = c.recv(65536)
        if not piece:
            break
        rest += piece
    assert b"[DONE]" in rest, rest[-200:]
    s.end()


def files_are_read_again():
    with tempfile.TemporaryDirectory() as folder:
        keys = os.path.join(folder, "keys")
        open(keys, "w").write("sk-one first\n")
        s = Server("--api-key-file", keys)
        get = lambda key: s.ask("GET", "/v1/models", headers={"Authorization": "Bearer " + key})[0]
        assert (get("sk-one"), get("sk-two")) == (200, 401)
        assert s.ask("GET", "/metrics")[0] == 401 and s.ask("GET", "/health")[0] == 200 and s.ask("GET", "/ready")[0] == 200
        open(keys, "w").write("sk-two second\n")
        os.rename(s.log, s.log + ".1")
        s.process.send_signal(signal.SIGHUP)
        for _ in range(200):
            if get("sk-two") == 200:
                break
            time.sleep(0.02)
        assert (get("sk-one"), get("sk-two")) == (401, 200)
        status, _, _ = s.ask("POST", "/v1/chat/completions", CHAT, headers={"Authorization": "Bearer sk-two"})
        assert status == 200
        line = json.loads(open(s.log).read().splitlines()[-1])
        assert line["key"] == "second" and line["status"] == 200 and line["completion_tokens"] > 0, line
        open(keys, "w").write("x\n")  # too short: the old ones stay
        status, text, _ = s.ask("POST", "/reload", to=s.admin)
        assert status == 400 and "line 1" in text, text
        assert get("sk-two") == 200
        s.end()


def pages_of_allowed_origins_may_ask():
    s = Server("--allowed-origin", "https://one.example")
    asked = {"Origin": "https://one.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    status, _, headers = s.ask("OPTIONS", "/v1/chat/completions", headers=asked)
    assert status == 204 and headers["Access-Control-Allow-Origin"] == "https://one.example"
    assert headers["Access-Control-Allow-Headers"] == "content-type"
    _, _, headers = s.ask("GET", "/v1/models", headers={"Origin": "https://one.example"})
    assert headers["Access-Control-Allow-Origin"] == "https://one.example"
    _, _, headers = s.ask("GET", "/v1/models", headers={"Origin": "https://two.example"})
    assert headers["Access-Control-Allow-Origin"] is None
    assert s.ask("OPTIONS", "/v1/models", headers={**asked, "Origin": "https://two.example"})[0] == 405
    s.end()


def the_service_manager_is_told():
    with tempfile.TemporaryDirectory() as folder:
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(os.path.join(folder, "notify"))
        manager.settimeout(30)
        s = Server(NOTIFY_SOCKET=os.path.join(folder, "notify"), WATCHDOG_USEC="300000")
        heard = [manager.recv(100) for _ in range(3)]
        assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"], heard
        s.end()
        while heard[-1] == b"WATCHDOG=1":
            heard.append(manager.recv(100))
        assert heard[-1] == b"STOPPING=1", heard


def tls_works_and_its_certificate_is_read_again():
    if not shutil.which("openssl"):
        print("skipped: no openssl program to make a certificate with")
        return
    with tempfile.TemporaryDirectory() as folder:
        key, cert = os.path.join(folder, "key"), os.path.join(folder, "cert")

        def make(name):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                            "-out", cert, "-days", "2", "-subj", "/CN=" + name, "-addext", "subjectAltName=DNS:localhost"],
                           check=True, stderr=subprocess.DEVNULL)
        make("one")
        s = Server("--port", "0", "--tls-cert", cert, "--tls-key", key)
        port = int(s.words().split("https://127.0.0.1:")[1].split()[0])

        def ask():
            context = ssl.create_default_context(cafile=cert)
            c = http.client.HTTPSConnection("localhost", port, context=context, timeout=60)
            c.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
            for _ in range(2):  # on one connection
                c.request("POST", "/v1/chat/completions", CHAT)
                answer = c.getresponse()
                assert answer.status == 200 and json.loads(answer.read())
            c.close()
        ask()
        make("two")
        assert s.ask("POST", "/reload", to=s.admin)[0] == 200
        ask()  # trusts the second only
        plain = socket.create_connection(("127.0.0.1", port))
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.settimeout(30)
        assert b"200" not in plain.recv(1000)
        for n in range(0, 40, 3):  # handshakes that end early
            c = socket.create_connection(("127.0.0.1", port))
            c.sendall((b"\x16\x03\x01\x00\xff\x01\x00\x00\xfb\x03\x03" + bytes(40))[:n])
            c.close()
        warnings.simplefilter("ignore", DeprecationWarning)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        try:
            old.wrap_socket(socket.create_connection(("127.0.0.1", port)))
            raise AssertionError("TLS 1.1 was accepted")
        except (ssl.SSLError, OSError):
            pass
        ask()
        s.end()
    refused = subprocess.run([TANDEM, "serve", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"], capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and refused.stderr == "tandem: --tls-cert /nowhere: No such file or directory\n", refused


def random_abuse_leaves_it_well():
    s = Server("--max-seqs", "8", "--max-queue", "16")
    want = s.well()
    end, draw = time.time() + float(os.environ.get("SOAK_SECONDS", "5")), random.Random(1)

    def rude(seed):
        r = random.Random(seed)
        while time.time() < end:
            c = s.connect()
            body = json.dumps({**LONG, "n": r.choice([1, 3]), "max_tokens": r.choice([1, 20, 200]), "stream": r.random() < 0.5})
            text = bytearray(request_text(body, r.choice(["", "Connection: close\r\n", "Expect: 100-continue\r\n"])))
            for _ in range(r.choice([0, 0, 1, 5])):
                text[r.randrange(len(text))] = r.randrange(256)
            try:
                c.sendall(text[:r.randrange(len(text) + 1)] if r.random() < 0.3 else text)
                c.settimeout(r.random() * 0.3)
                for _ in range(r.randrange(4)):
                    c.recv(r.choice([1, 1000]))
            except OSError:
                pass
            c.close()
    crowd = [threading.Thread(target=rude, args=(draw.random(),)) for _ in range(12)]
    for t in crowd:
        t.start()
    for t in crowd:
        t.join()
    s.wait_running(0)
    assert s.well() == want
    s.end()


CLAIMS = [clients_may_leave_at_every_byte, hostile_bodies_are_refused_by_name, too_many_are_told_when_to_come_back,
          steps_are_compared_with_the_hardware_profile,
          ten_thousand_requests_are_answered_or_refused_and_memory_stays, every_figure_is_in_the_manual,
          beginnings_are_shared_by_one_key_and_salt_only, a_timeout_ends_an_answer,
          the_operator_sees_and_ends_requests, draining_loses_nothing,
          a_drain_that_takes_too_long_ends_answers_early, files_are_read_again, pages_of_allowed_origins_may_ask,
          the_service_manager_is_told, tls_works_and_its_certificate_is_read_again, random_abuse_leaves_it_well]

if __name__ == "__main__":
    TANDEM = os.path.abspath(sys.argv[1])
    failed = 0
    for claim in CLAIMS:
        if len(sys.argv) > 2 and claim.__name__ not in sys.argv[2:]:
            continue
        try:
            claim()
            print("ok -", claim.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAILED -", claim.__name__, flush=True)
            traceback.print_exc()
    sys.exit(failed > 0)
