#!/usr/bin/env python3
"""A registry in memory, as much of the OCI distribution API as a push and a pull need: packaging/test/registry.py

Listens on a free port of 127.0.0.1, prints the port, and serves until it is ended. It refuses content whose digest is not the one announced.
"""

import hashlib
import re
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

BLOBS, MANIFESTS = {}, {}


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/v2/":
            return self.answer(200)
        if (match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", path)) and match[2] in BLOBS:
            return self.answer(200, BLOBS[match[2]], Docker_Content_Digest=match[2], Content_Type="application/octet-stream")
        if (match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path)) and (match[1], match[2]) in MANIFESTS:
            kind, content = MANIFESTS[match[1], match[2]]
            return self.answer(200, content, Docker_Content_Digest=digest(content), Content_Type=kind)
        return self.answer(404)

    do_HEAD = do_GET

    def do_POST(self):
        self.body()
        match = re.fullmatch(r"/v2/(.+)/blobs/uploads/", urlsplit(self.path).path)
        return self.answer(202, Location=f"/v2/{match[1]}/blobs/uploads/{uuid.uuid4()}") if match else self.answer(404)

    def do_PUT(self):
        url, content = urlsplit(self.path), self.body()
        if re.fullmatch(r"/v2/(.+)/blobs/uploads/[^/]+", url.path):
            announced = parse_qs(url.query).get("digest", [""])[0]
            if announced != digest(content):
                return self.answer(400)
            BLOBS[announced] = content
            return self.answer(201, Docker_Content_Digest=announced, Location=url.path)
        if match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", url.path):
            for reference in (match[2], digest(content)):
                MANIFESTS[match[1], reference] = (self.headers["Content-Type"], content)
            return self.answer(201, Docker_Content_Digest=digest(content), Location=url.path)
        return self.answer(404)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
