"""Writes layout.txt: the cache that huggingface_hub makes of a small repository.

Needs huggingface_hub (2.4.0 made the committed file); no network: a hub on this machine answers.

    python make_layout.py > layout.txt
"""

import hashlib
import http.server
import json
import os
import tempfile
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"Q4_0/m-Q4_0.gguf": b"\0" * 5000, "mmproj-F16.gguf": b"encoder"}
# Large files have the SHA-256 of their bytes as ETag, small ones git's id of a blob.
LARGE = 1000


class Hub(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        status, headers, body = 200, {}, b""
        if path.startswith("/api/models/org/m/tree/"):
            body = json.dumps([{"type": "file", "path": f, "size": len(b), "oid": "0"} for f, b in FILES.items()]).encode()
        elif path.startswith("/api/models/org/m"):
            siblings = [{"rfilename": f} for f in FILES]
            body = json.dumps({"_id": "0", "id": "org/m", "sha": COMMIT, "siblings": siblings, "tags": []}).encode()
        elif path.partition(COMMIT + "/")[2] not in FILES:
            status = 404
        else:
            body = FILES[path.partition(COMMIT + "/")[2]]
            git = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git}"'}
            if len(body) >= LARGE:
                headers |= {"X-Linked-Etag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Linked-Size": str(len(body))}
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ.update(HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", HF_HUB_DISABLE_PROGRESS_BARS="1")
    import huggingface_hub

    with tempfile.TemporaryDirectory() as cache:
        huggingface_hub.snapshot_download("org/m", cache_dir=cache)
        lines = []
        for directory, _, names in os.walk(cache):
            for name in names:
                path = os.path.join(directory, name)
                target = f" -> {os.readlink(path)}" if os.path.islink(path) else ""
                lines.append(os.path.relpath(path, cache) + target)
    print(f"# huggingface_hub {huggingface_hub.__version__}")
    print("\n".join(sorted(lines)))


main()
