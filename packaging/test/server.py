#!/usr/bin/env python3
"""Serves a release as a forge does, and badly: packaging/test/server.py PORT RELEASE BAD-RELEASES

  /releases/latest/download/FILE and /releases/download/vVERSION/FILE   the release
  /bad/NAME/FILE                                                        a folder of bad releases
  /truncated/FILE                                                       half of the file, with the length of the whole
  /slow/FILE                                                            the checksums, and half of anything else: then nothing more comes

Prints "ready" once it accepts connections.
"""

import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path



def read(folder):
    """All files below a folder: the server's file system is replaced once it runs."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


RELEASE, BAD = read(Path(sys.argv[2])), read(Path(sys.argv[3]))
ROUTES = (
    (r"/releases/(?:latest/download|download/v[^/]+)/([^/]+)", RELEASE),
    (r"/bad/([^/]+/[^/]+)", BAD),
    (r"/(?:truncated|slow)/([^/]+)", RELEASE),
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        for route, files in ROUTES:
            match = re.fullmatch(route, self.path)
            if match and match[1] in files:
                return self.answer(files[match[1]])
        return self.send_error(404)

    def answer(self, content):
        half = self.path.startswith("/truncated/") or (self.path.startswith("/slow/") and "SUMS" not in self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if half else content)
        self.wfile.flush()
        if half and self.path.startswith("/slow/"):
            time.sleep(60)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
print("ready", flush=True)
server.serve_forever()
