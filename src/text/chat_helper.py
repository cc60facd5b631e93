"""Renders chat templates for tandem: the helper process of chat_helper.c.

Reads requests from descriptor 3 and writes answers to it, each 4 bytes of length (little endian)
and JSON. The environment is the one Hugging Face transformers gives its templates; limits
on memory, files and processes were set before this program began. The one argument is a
seccomp filter in hexadecimal, installed when all modules are loaded.
"""
import ctypes
import datetime
import json
import os
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

REQUEST, LIMIT = 3, 64 << 20


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks what the model says; renders as its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_body")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment(now):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: (now or datetime.datetime.now()).strftime(form)
    return env


def read(n):
    parts = []
    while n:
        part = os.read(REQUEST, n)
        if not part:
            sys.exit(0)
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def answer(o):
    text = json.dumps(o).encode()
    data = len(text).to_bytes(4, "little") + text
    while data:
        data = data[os.write(REQUEST, data):]


def render(o, cache):
    now = datetime.datetime.fromisoformat(o["now"]) if o.get("now") else None
    key = (o["template"], o.get("now"))
    if key not in cache:
        cache.clear()
        cache[key] = environment(now).from_string(o["template"])
    return cache[key].render(**o["variables"])


class Filter(ctypes.Structure):
    """struct sock_fprog of <linux/filter.h>"""

    _fields_ = [("instructions", ctypes.c_ushort), ("at", ctypes.c_char_p)]


def lock(program):
    """From here on: compute, read, write. A kernel without seccomp leaves us the other limits."""
    PR_SET_SECCOMP, SECCOMP_MODE_FILTER, BYTES = 22, 2, 8
    if program:
        ctypes.CDLL(None).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER,
                                ctypes.byref(Filter(len(program) // BYTES, program)), 0, 0)


def main():
    cache = {}
    try:  # what a template may need is loaded while files may be opened
        environment(None).from_string("{{ [1] | tojson }}{{ strftime_now('%d %b %Y') }}{{ raise_exception('') }}").render()
    except jinja2.exceptions.TemplateError:
        pass
    lock(bytes.fromhex(sys.argv[1]))
    answer({"ready": True})
    while True:
        o = json.loads(read(min(int.from_bytes(read(4), "little"), LIMIT)))
        try:
            answer({"text": render(o, cache)})
        except MemoryError:
            cache.clear()
            answer({"error": "the template needs too much memory"})
        except Exception as e:  # whatever a template raises is the user's to read
            answer({"error": str(e) or type(e).__name__})


main()
