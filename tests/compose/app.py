"""What the containers of these tests run: one HTTP server that behaves as $MODE says."""

import http.server
import json
import os
import signal
import sys
import time

MODE = os.environ.get("MODE", "")
VERSION = os.environ["BUILT_VERSION"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/slow":
            time.sleep(3)
        status = 503 if MODE == "sick" else 200
        body = json.dumps({"status": "ok", "version": VERSION, "env": dict(os.environ), "path": self.path}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if MODE == "fleeting" and self.path == "/version":
            self.wfile.flush()
            print("that was all", flush=True)
            os._exit(4)

    def log_message(self, *_):
        pass


def main():
    print("starting", VERSION, "in", os.environ.get("SLOT"), "with", os.environ.get("TOKEN"), flush=True)
    if MODE == "crash":
        sys.exit("no such table: users")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()


main()
