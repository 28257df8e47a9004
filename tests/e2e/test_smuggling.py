"""
Requests that two readers could take differently. Behind each of them, in the same bytes, lies another request, NEXT:
either both see it (the first was clear) or nobody does (the first was refused, and the connection ends with it).
One row a case: what is sent, and the statuses that come back; THEN is the answer to NEXT, MAYBE one that may be there
or not, by how much of an unread body has come. The log must hold a line for each answer and no more. Each case goes at
once and byte by byte; test_smuggling_nginx.py sends the same through Nginx.
"""

import json

import pytest

from conftest import short_folder
from gateway import ACCESS_LINE, KEY, Gateway, chat_body
from test_http import MALFORMED
from wire import Cut, chunked, wait_for

THEN, MAYBE = 404, None
NEXT = "GET /v1/next HTTP/1.1\r\nHost: a\r\nX-Request-Id: next\r\n\r\n"
HIDDEN = "GET /v1/hidden HTTP/1.1\r\nHost: a\r\n\r\n"  # what an attacker would like to be taken for a request

BODY = json.dumps(chat_body("say:well"))
GET = "GET /v1/models HTTP/1.1\r\nHost: a\r\n"
KEYED = GET + f"Authorization: Bearer {KEY}\r\n"
BARE = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
POST = BARE + f"Authorization: Bearer {KEY}\r\n"
LENGTH = f"Content-Length: {len(BODY)}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
CHUNKS = chunked(BODY.encode()).decode()
SIZE = f"{len(BODY):x}"
EARLY_END = "0\r\n\r\n" + HIDDEN  # chunks: nothing, and then a request; a length: all of it is the body
BY_LENGTH = f"Content-Length: {len(EARLY_END)}\r\n"


def one(field, body=BODY):
    """A good chat but for that field, which frames it."""
    return f"{POST}{field}\r\n\r\n{body}"


def chunk(size_line, data=f"{BODY}\r\n0\r\n\r\n"):
    return f"{POST}{CHUNKED}\r\n{size_line}{data}"


def trailers(lines):
    return f"{POST}{CHUNKED}\r\n{SIZE}\r\n{BODY}\r\n0\r\n{lines}\r\n"


def target(path, method="GET"):
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n"


def fields(count, size=1):
    return GET + "".join(f"X-{n}: {'x' * size}\r\n" for n in range(count - 1)) + "\r\n"


LENGTHS = {
    "a length as it should be": (one(f"Content-Length: {len(BODY)}"), [200, THEN]),
    "a length among spaces": (one(f"Content-Length:   {len(BODY)}  "), [200, THEN]),
    "a length behind zeros": (one(f"Content-Length: {len(BODY):018d}"), [200, THEN]),
    "a length behind too many zeros": (one(f"Content-Length: {len(BODY):019d}"), [400]),
    "a length shorter than the body": (one("Content-Length: 3"), [400, 400]),
    "a length without a body": (f"{POST}Content-Length: 0\r\n\r\n", [400, THEN]),
    "no length, and a body": (f"{POST}\r\n{BODY}", [400, 400]),
    "two lengths, the first right": (one(f"Content-Length: {len(BODY)}\r\nContent-Length: 0"), [400]),
    "two lengths, the second right": (one(f"Content-Length: 0\r\nContent-Length: {len(BODY)}"), [400]),
    "two lengths far apart in two cases": (one(f"CONTENT-LENGTH: {len(BODY)}\r\nX: y\r\ncontent-length: {len(BODY)}"), [400]),
    "a list of lengths without a space": (one(f"Content-Length: {len(BODY)},{len(BODY)}"), [400]),
    "a list of unequal lengths": (one(f"Content-Length: {len(BODY)}, 0"), [400]),
    "a length and a comma": (one(f"Content-Length: {len(BODY)},"), [400]),
    "a length behind a tab": (one(f"Content-Length:\t{len(BODY)}"), [400]),
    "a length before a tab": (one(f"Content-Length: {len(BODY)}\t"), [400]),
    "a length in two words": (one("Content-Length: 2 2"), [400]),
    "a length in quotes": (one(f'Content-Length: "{len(BODY)}"'), [400]),
    "a length with an exponent": (one("Content-Length: 1e2"), [400]),
    "a length with a point": (one(f"Content-Length: {len(BODY)}.0"), [400]),
    "a length with an underscore": (one("Content-Length: 8_3"), [400]),
    "a length in wide digits": (one("Content-Length: \uff18\uff13"), [400]),
    "a length that wraps at 32 bits": (one(f"Content-Length: {(1 << 32) + len(BODY)}"), [413]),
    "a length that wraps at 64 bits": (one(f"Content-Length: {(1 << 64) + len(BODY)}"), [400]),
    "a length that is negative at 64 bits": (one(f"Content-Length: {(1 << 63) + len(BODY)}"), [400]),
    "a folded length": (one(f"Content-Length:\r\n {len(BODY)}"), [400]),
    "a length that goes on in a fold": (one("Content-Length: 8\r\n 3"), [400]),
    "a space before the length's colon": (one(f"Content-Length : {len(BODY)}"), [400]),
    "a tab before the length's colon": (one(f"Content-Length\t: {len(BODY)}"), [400]),
    "a length behind a NUL": (one(f"Content-Length: \0{len(BODY)}"), [400]),
    "a length that only looks like one": (one(f"Content-Length: {len(BODY)}\r\nContent_Length: 0\r\nContent-Length2: 1"),
                                          [200, THEN]),
}
CODINGS = {
    "chunks as they should be": (f"{POST}{CHUNKED}\r\n{CHUNKS}", [200, THEN]),
    "chunks in odd case": (f"{POST}tRANSFER-eNCODING: ChUnKeD\r\n\r\n{CHUNKS}", [200, THEN]),
    "chunks among spaces": (f"{POST}Transfer-Encoding:  chunked  \r\n\r\n{CHUNKS}", [200, THEN]),
    "length, then chunks": (f"{POST}{BY_LENGTH}{CHUNKED}\r\n{EARLY_END}", [400]),
    "chunks, then length": (f"{POST}{CHUNKED}{BY_LENGTH}\r\n{EARLY_END}", [400]),
    "length, then chunks, that agree": (f"{POST}Content-Length: {len(CHUNKS)}\r\n{CHUNKED}\r\n{CHUNKS}", [400]),
    "length and chunks without a key": (f"{BARE}{BY_LENGTH}{CHUNKED}\r\n{EARLY_END}", [400]),
    "length and identity": (f"{POST}{LENGTH}Transfer-Encoding: identity\r\n\r\n{BODY}", [400]),
    "length and an empty coding": (f"{POST}{LENGTH}Transfer-Encoding:\r\n\r\n{BODY}", [400]),
    "chunks in HTTP/1.0": (POST.replace("1.1", "1.0") + f"{CHUNKED}\r\n{CHUNKS}", [400]),
    "chunks in HTTP/1.0 that asks to be kept": (POST.replace("1.1", "1.0") + f"{CHUNKED}Connection: keep-alive\r\n\r\n{CHUNKS}",
                                                [400]),
    "chunks, then identity, in two fields": (f"{POST}{CHUNKED}Transfer-Encoding: identity\r\n\r\n{CHUNKS}", [400]),
    "identity, then chunks, in two fields": (f"{POST}Transfer-Encoding: identity\r\n{CHUNKED}\r\n{CHUNKS}", [400]),
    "an unknown coding named last": (f"{POST}{CHUNKED}Transfer-encoding: cow\r\n\r\n{CHUNKS}", [400]),
    **{f"the coding {coding!r}": (f"{POST}Transfer-Encoding:{coding}\r\n\r\n{CHUNKS}", [400]) for coding in (
           "\tchunked", " chunked\t", " \x0bchunked", " chunked\x0c", " chunked\0", " chunked, chunked", " identity",
           " gzip, chunked", " chunked, gzip", " chunked;q=1", " ,chunked", " chunked,", ' "chunked"', " 'chunked'", " chun ked",
           " chunkedx", " chun\u212aed", " \u00a0chunked", " c\u0000hunked", "", " \r\n chunked", "\r\n\tchunked",
           " chunked\r\n , identity", " x\r\n\tchunked", " chunk")},
    "a coding before a space and a colon": (f"{POST}{BY_LENGTH}Transfer-Encoding : chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding before a tab and a colon": (f"{POST}{BY_LENGTH}Transfer-Encoding\t: chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding before a NUL and a colon": (f"{POST}{BY_LENGTH}Transfer-Encoding\0: chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding behind a space": (f"{POST}{BY_LENGTH} Transfer-Encoding: chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding behind a tab": (f"{POST}{BY_LENGTH}X: y\r\n\tTransfer-Encoding: chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding behind a bare newline": (f"{POST}{BY_LENGTH}X: y\nTransfer-Encoding: chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding behind a bare return": (f"{POST}{BY_LENGTH}X: y\rTransfer-Encoding: chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding behind a form feed": (f"{POST}{BY_LENGTH}X: y\r\n\x0cTransfer-Encoding: chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding without its colon": (f"{POST}{BY_LENGTH}Transfer-Encoding chunked\r\n\r\n{EARLY_END}", [400]),
    "a coding that only looks like one": (f"{POST}{LENGTH}Transfer_Encoding: chunked\r\nTE: chunked\r\n\r\n{BODY}", [200, THEN]),
    "a coding named by Connection": (f"{POST}{CHUNKED}Connection: transfer-encoding\r\n\r\n{CHUNKS}", [200, THEN]),
    "a length named by Connection": (one(f"Connection: content-length\r\nContent-Length: {len(BODY)}"), [200, THEN]),
}
CHUNK_LINES = {
    **{f"a chunk of the size {size!r}": (chunk(f"{size}\r\n"), [400]) for size in (
        f"0x{SIZE}", f"+{SIZE}", f"-{SIZE}", f" {SIZE}", f"\t{SIZE}", f"{SIZE} ", f"{SIZE}\t", f"{SIZE} {SIZE}", f"{SIZE},{SIZE}",
        f"{SIZE}_0", f"{SIZE}g", f"{SIZE}h", f'"{SIZE}"', f"{SIZE}\0", "", "\uff15", "f" * 16, "8" + "0" * 15, f"1{int(SIZE, 16):016x}",
        f"{int(SIZE, 16):017x}", "-0", "+0")},
    "a chunk whose size has capitals and zeros": (chunk(f"00000{SIZE.upper()}\r\n"), [200, THEN]),
    "a last chunk of many zeros": (chunk(f"{SIZE}\r\n", f"{BODY}\r\n0000000000000000\r\n\r\n"), [200, THEN]),
    "extensions": (chunk(f'{SIZE};a;b=c;d="e\\"; f"\r\n', f"{BODY}\r\n0;last\r\n\r\n"), [200, THEN]),
    "an extension behind a space": (chunk(f"{SIZE} ;a=b\r\n"), [200, THEN]),
    "an extension of 300 bytes": (chunk(f"{SIZE};a={'b' * 300}\r\n"), [400]),
    "an extension of 64 KiB": (chunk(f"{SIZE};a={'b' * 65536}\r\n"), [400]),
    "an extension with a return in quotes": (chunk(f'{SIZE};a="\r\n'), [400]),
    "an extension with a return behind a backslash": (chunk(f'{SIZE};a="\\\r\n'), [400]),
    "an extension with a newline": (chunk(f"{SIZE};\n"), [400]),
    "an extension with a newline in quotes": (chunk(f'{SIZE};a="\n{HIDDEN}"\r\n'), [400]),
    "an extension with a NUL": (chunk(f"{SIZE};\0\r\n"), [400]),
    "an extension with a bare return": (chunk(f"{SIZE};a\rb\r\n"), [400]),
    "a newline alone behind the size": (chunk(f"{SIZE}\n"), [400]),
    "a return alone behind the size": (chunk(f"{SIZE}\r"), [400]),
    "a newline alone behind the data": (chunk(f"{SIZE}\r\n", f"{BODY}\n0\r\n\r\n"), [400]),
    "no line end behind the data": (chunk(f"{SIZE}\r\n", f"{BODY}0\r\n\r\n"), [400]),
    "another byte than a return behind the data": (chunk(f"{SIZE}\r\n", f"{BODY}XX0\r\n\r\n"), [400]),
    "an empty line more behind the data": (chunk(f"{SIZE}\r\n", f"{BODY}\r\n\r\n0\r\n\r\n"), [400]),
    "a chunk that is shorter than said": (chunk(f"{len(BODY) + 2:x}\r\n"), [400]),
    "no chunks but a request": (f"{POST}{CHUNKED}\r\n{HIDDEN}", [400]),
    "chunks of nothing": (f"{POST}{CHUNKED}\r\n0\r\n\r\n", [400, THEN]),
    "chunks without a key": (f"{BARE}{CHUNKED}\r\n{EARLY_END}", [401]),
    "chunks that a GET brings": (f"{KEYED}{CHUNKED}\r\n0\r\n\r\n", [200]),
}
TRAILERS = {
    "a trailer": (trailers("X-Checksum: 1\r\n"), [200, THEN]),
    "a trailer that frames by length": (trailers(f"Content-Length: {len(NEXT)}\r\n"), [200, THEN]),
    "a trailer that frames by chunks": (trailers(CHUNKED), [200, THEN]),
    "a trailer with another key": (trailers("Authorization: Bearer wrong\r\n"), [200, THEN]),
    "a trailer with the only key": (f"{BARE}{CHUNKED}\r\n{CHUNKS[:-2]}Authorization: Bearer {KEY}\r\n\r\n", [401]),
    "a trailer with another host": (trailers("Host: b\r\nHost: c\r\n"), [200, THEN]),
    "a trailer that ends the connection": (trailers("Connection: close\r\n"), [200, THEN]),
    "trailers of 9 KiB": (trailers(f"X: {'y' * 9216}\r\n"), [400]),
    "a folded trailer": (trailers("X: y\r\n z\r\n"), [400]),
    "a trailer with a bare newline": (trailers(f"X: y\n{HIDDEN}"), [400]),
    "a trailer with a bare return": (trailers("X: y\rz\r\n"), [400]),
    "a trailer with a NUL": (trailers("X: \0\r\n"), [400]),
    "a trailer without a name": (trailers(": y\r\n"), [400]),
    "a trailer with a space before the colon": (trailers("X : y\r\n"), [400]),
    "a request where trailers would be": (f"{POST}{CHUNKED}\r\n{SIZE}\r\n{BODY}\r\n0\r\n", [400]),
    "a bare newline where trailers would end": (f"{POST}{CHUNKED}\r\n{SIZE}\r\n{BODY}\r\n0\r\n\n", [400]),
}
LINES = {
    "newlines alone": ("GET /v1/models HTTP/1.1\nHost: a\n\n", [400]),
    "a newline alone at the end of the head": (f"{GET}\n", [400]),
    "a newline alone, then the end of the head": (f"{GET}X: y\n\r\n", [400]),
    "returns alone": ("GET /v1/models HTTP/1.1\rHost: a\r\r", [400]),
    "a return too many": (f"{GET}X: y\r\r\n\r\n", [400]),
    "a newline alone in the request line": ("GET /v1/models\nHTTP/1.1\r\nHost: a\r\n\r\n", [400]),
    "an empty line first": (f"\r\n{KEYED}\r\n", [200, THEN]),
    "two empty lines first": (f"\r\n\r\n{KEYED}\r\n", [400]),
    "a bare newline first": (f"\n{KEYED}\r\n", [400]),
    "a space first": (f" {KEYED}\r\n", [400]),
    "a folded line first": ("GET /v1/models HTTP/1.1\r\n Host: b\r\nHost: a\r\n\r\n", [400]),
    "a fold that is empty": (f"{GET}X: y\r\n \r\n\r\n", [400]),
    "a folded key": (f"{GET}Authorization: Bearer\r\n {KEY}\r\n\r\n", [400]),
    "a name with a space": (f"{GET}X Y: z\r\n\r\n", [400]),
    "a name with a slash": (f"{GET}X/Y: z\r\n\r\n", [400]),
    "a name beyond ASCII": (f"{GET}X\u00e9: z\r\n\r\n", [400]),
    "a name that is a request": (f"{GET}GET /v1/hidden HTTP/1.1\r\n\r\n", [400]),
    "a NUL in the method": ("G\0ET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", [400]),
    "a NUL in the path": ("GET /v1/models\0 HTTP/1.1\r\nHost: a\r\n\r\n", [400]),
    "a NUL in a name": (f"{GET}X\0Y: z\r\n\r\n", [400]),
    "a NUL behind the key": (f"{GET}Authorization: Bearer {KEY}\0\r\n\r\n", [400]),
    "a NUL in the body": (f"{POST}Content-Length: {len(BODY)}\r\n\r\n{BODY[:-1]}\0", [400, THEN]),
    "a delete character": (f"{GET}X: \x7f\r\n\r\n", [400]),
    "a header of 64 KiB": (f"{GET}X: {'x' * 65536}\r\n\r\n", [431]),
    "a path of 64 KiB": (target("/" + "x" * 65536), [431]),
    "a header of 60 KiB": (f"{KEYED}X: {'x' * 61440}\r\n\r\n", [200, THEN]),
    "1,000 headers": (fields(1000), [431]),
    "129 headers": (fields(129), [431]),
    "128 headers": (fields(128), [401, THEN]),
}
TARGETS = {
    "an absolute target": (target("http://a/v1/models"), [200, THEN]),
    "an absolute target in capitals": (target("HTTP://A/v1/models"), [200, THEN]),
    "an absolute target elsewhere": (target("http://b/v1/models"), [400]),
    "an absolute target with a user": (target("http://u@a/v1/models"), [400]),
    "an absolute target without a host": (target("http:///v1/models"), [400]),
    "an absolute target of another kind": (target("ftp://a/v1/models"), [400]),
    "an absolute target to the backend": (target("http://127.0.0.1:11434/api/tags"), [400]),
    "an asterisk": (target("*", "OPTIONS"), [404, THEN]),
    "an asterisk for GET": (target("*"), [400]),
    "a host and a port for GET": (target("a:80"), [400]),
    "CONNECT": (target("a:443", "CONNECT"), [400]),
    "CONNECT to a path": (target("/v1/models", "CONNECT"), [405, THEN]),
    "TRACE": (target("/v1/models", "TRACE"), [405, THEN]),
    "dots to a path that is there": (target("/v1/../v1/models"), [404, THEN]),
    "dots to a path that needs no key": (target("/v1/models/../../healthz"), [404, THEN]),
    "escaped dots": (target("/v1/%2e%2e/healthz"), [404, THEN]),
    "escaped slashes": (target("/v1%2fmodels"), [404, THEN]),
    "escaped dots and slashes": (target("/v1/models/%2e%2e%2f%2e%2e%2fapi%2fpull"), [404, THEN]),
    "a dot": (target("/v1/./models"), [404, THEN]),
    "two slashes": (target("//v1/models"), [404, THEN]),
    "two slashes within": (target("/v1//models"), [404, THEN]),
    "a host behind two slashes": (target("//a/v1/models"), [404, THEN]),
    "a slash at the end": (target("/v1/chat/completions/", "POST"), [404, THEN]),
    "backslashes": (target("\\v1\\models"), [400]),
    "capitals": (target("/V1/MODELS"), [404, THEN]),
    "an escaped letter": (target("/v1/model%73"), [404, THEN]),
    "an escaped NUL": (target("/v1/models/%00"), [404, THEN]),
    "a half escape": (target("/v1/models/%2"), [404, THEN]),
    "a parameter": (target("/v1/models;a=b"), [404, THEN]),
    "a query with a path": (target("/v1/models?/../../healthz"), [200, THEN]),
    "a query with a request": (target("/v1/models?%20HTTP/1.1%0d%0aHost:%20a"), [200, THEN]),
    "a fragment": (target("/v1/models#x"), [400]),
    "Ollama's own paths": (target("/api/tags"), [404, THEN]),
    "a tab in the request line": ("GET\t/v1/models\tHTTP/1.1\r\nHost: a\r\n\r\n", [400]),
    "a path beyond ASCII": (target("/v1/mod\u00e8ls"), [400]),
}
VERSIONS = {
    "HTTP/1.0": ("GET /healthz HTTP/1.0\r\n\r\n", [200]),
    "HTTP/1.0 that asks to be kept": ("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [200, THEN]),
    **{f"the version {version!r}": (f"GET /v1/models {version}\r\nHost: a\r\n\r\n", [400]) for version in (
        "HTTP/0.9", "HTTP/1.2", "HTTP/1.10", "HTTP/01.1", "HTTP/1", "HTTP/1.", "HTTP/11", "HTTP/2", "HTTP/3", "http/1.1", "HTTP/1.1x",
        "HTTPS/1.1", "HTTP/1.1 HTTP/1.1", "HTTP/1.1 ", "XTTP/1.1", "HTTP /1.1", "HTTP/ 1.1")},
}
FIELDS = {
    "Connection: close": (f"{KEYED}Connection: close\r\n\r\n", [200]),
    "Connection: close among others, in a second field": (f"{KEYED}Connection: x\r\nConnection: y , ClosE\r\n\r\n", [200]),
    "two types of the body": (one(f"Content-Type: text/plain\r\nContent-Type: application/json\r\n{LENGTH[:-2]}"), [400]),
    "two hosts in two cases": (f"{GET}hOST: a\r\n\r\n", [400]),
    "a list of hosts": ("GET /v1/models HTTP/1.1\r\nHost: a, b\r\n\r\n", [400]),
    "a host with a path": ("GET /v1/models HTTP/1.1\r\nHost: a/b\r\n\r\n", [400]),
    "an empty host": (f"GET /v1/models HTTP/1.1\r\nHost:\r\nAuthorization: Bearer {KEY}\r\n\r\n", [200, THEN]),
    "two keys, the good one first": (f"{KEYED}Authorization: Bearer wrong\r\n\r\n", [400]),
    "two keys, the good one last": (f"{GET}Authorization: Bearer wrong\r\nauthorization: Bearer {KEY}\r\n\r\n", [400]),
    "two keys in the header for keys": (f"{GET}X-Api-Key: wrong\r\nX-API-KEY: {KEY}\r\n\r\n", [400]),
    "a list of keys": (f"{GET}Authorization: Bearer wrong, Bearer {KEY}\r\n\r\n", [401, THEN]),
    "an expectation": (f"{POST}{LENGTH}Expect: 100-continue\r\n\r\n{BODY}", [200, THEN]),
    "an expectation without a body": (f"{KEYED}Expect: 100-continue\r\n\r\n", [417, THEN]),
    "an expectation without a key": (f"{BARE}Content-Length: {len(HIDDEN)}\r\nExpect: 100-continue\r\n\r\n{HIDDEN}", [401, MAYBE]),
    "an expectation twice": (f"{POST}{LENGTH}Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n{BODY}", [400]),
    "an expectation of something else": (f"{POST}{LENGTH}Expect: 200-ok\r\n\r\n{BODY}", [417, MAYBE]),
    "an upgrade to HTTP/2": (f"{KEYED}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
                             [200, THEN]),
    "an upgrade to a web socket": (f"{KEYED}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
                                   [200, THEN]),
    "a body that a GET brings": (f"{KEYED}Content-Length: {len(HIDDEN)}\r\n\r\n{HIDDEN}", [200, MAYBE]),
    "a body without a key": (f"{BARE}Content-Length: {len(HIDDEN)}\r\n\r\n{HIDDEN}", [401, MAYBE]),
    "a body to nowhere": (f"{target('/v1/nowhere', 'POST')[:-2]}Content-Length: {len(HIDDEN)}\r\n\r\n{HIDDEN}", [404, MAYBE]),
    "a body that is too large, and is not there": (f"{POST}Content-Length: {33 << 20}\r\n\r\n{HIDDEN}", [413]),
    "a compressed body": (f"{POST}{LENGTH}Content-Encoding: gzip\r\n\r\n{BODY}", [415, MAYBE]),
    "a method override": (f"{BARE}X-HTTP-Method-Override: GET\r\nContent-Length: {len(HIDDEN)}\r\n\r\n{HIDDEN}", [401, MAYBE]),
}
CASES = {**LENGTHS, **CODINGS, **CHUNK_LINES, **TRAILERS, **LINES, **TARGETS, **VERSIONS, **FIELDS,
         **{f"malformed: {name}": (text, [400, 413, 505]) for name, text in MALFORMED.items()}}


class Books:
    """What the log has had to say since the last time it was asked."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.read = 0
        self.marks = 0
        self.is_settled = True

    def lines(self):
        """The lines of all that was answered before, one worker and so in order; a request of our own marks the end."""
        self.marks += 1
        self.is_settled = True
        mark = f"mark-{self.marks}"
        self.gateway.get("/healthz", {"X-Request-Id": mark, "Connection": "close"})
        whole = wait_for(lambda: (text := self.since()).find(f"req={mark} ") > 0 and text, 5, "a line in the log")
        self.read += len(whole.encode())
        lines = [ACCESS_LINE.match(line) for line in whole.splitlines()]
        assert all(lines), whole
        return [line for line in lines if line["req"] != mark]

    def since(self):
        with open(self.gateway.log_path, "rb") as log:
            log.seek(self.read)
            text = log.read()
        return text[:text.rfind(b"\n") + 1].decode()


@pytest.fixture(scope="module")
def door(session_fake):
    with short_folder() as path:
        gateway = Gateway(path, session_fake.url, workers=1)
        yield gateway
        gateway.stop()


@pytest.fixture(scope="module")
def shared_books(door):
    return Books(door)


@pytest.fixture
def books(shared_books):
    """As the test before has left them, unless it failed: then its lines are passed over."""
    shared_books.is_settled = False
    yield shared_books
    if not shared_books.is_settled:
        shared_books.lines()


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def send(wire, data, is_in_pieces):
    """False when the other side has closed in the middle, which is its right."""
    step = 1 if len(data) < 2000 else 1009
    pieces = [data[at:at + step] for at in range(0, len(data), step)] if is_in_pieces else [data]
    return all(wire.send_as_far_as_possible(piece) for piece in pieces)


def answers_until_next(wire):
    """Every answer up to that to NEXT, or to the end of the connection; and whether NEXT had one."""
    found = []
    while True:
        try:
            found.append(wire.answer())
        except Cut:
            return found, False
        if found[-1].header("X-Request-Id") == "next":
            return found, True


@pytest.mark.parametrize("is_in_pieces", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("which", CASES)
def test_a_request_ends_where_all_see_it_end(door, fake, books, which, is_in_pieces):
    text, wanted = CASES[which]
    wire = door.wire()
    send(wire, as_bytes(text) + NEXT.encode(), is_in_pieces)
    answers, is_next_answered = answers_until_next(wire)
    statuses = [answer.status for answer in answers]
    if which.startswith("malformed: "):
        assert len(statuses) == 1 and statuses[0] in wanted
    elif wanted[-1] is MAYBE:
        assert statuses in (wanted[:-1], wanted[:-1] + [THEN])
    else:
        assert statuses == wanted
    assert is_next_answered == (len(statuses) > 1 and statuses[-1] == THEN), "THEN is NEXT's answer and nobody else's"
    if is_next_answered:
        assert wire.request("POST", "/v1/chat/completions", {"Authorization": f"Bearer {KEY}"},
                            chat_body("say:mine")).answer().content == "mine"
    else:
        assert answers[-1].header("Connection") == "close" and wire.is_closed()
    lines = books.lines()
    assert [int(line["status"]) for line in lines] == statuses + [200] * is_next_answered
    assert not [line for line in lines if "hidden" in line["path"]]
    assert {request["path"] for request in fake.seen(None)} <= {"/api/chat", "/api/ps", "/api/tags", "/api/show", "/api/version"}


@pytest.mark.parametrize("size", ["100000000", "7fffffffffffffff"], ids=["4 GiB", "half of all"])
def test_a_chunk_that_never_ends_waits_for_its_time_and_takes_no_memory(start_gateway, size):
    gateway = start_gateway(body_timeout="300ms", max_body_memory_bytes="1MiB", max_body_bytes="1MiB")
    wire = gateway.wire().send(chunk(f"{size}\r\n"), NEXT)
    answers, is_next_answered = answers_until_next(wire)
    assert [answer.status for answer in answers] == [408] and not is_next_answered
