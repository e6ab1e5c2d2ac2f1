"""A chat endpoint for the tests of the judge."""
import http.server
import json
import threading
import time


class Server(http.server.ThreadingHTTPServer):
    """Answers request number n with replies[n], the last one again and again."""
    daemon_threads = True

    def __init__(self, replies):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.seen, self.times = replies, [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        server.times.append(time.monotonic())
        server.seen.append((self.path, dict(self.headers), json.loads(body)))
        reply = server.replies[min(len(server.seen), len(server.replies)) - 1]
        if callable(reply):
            return reply(self)
        status, headers, text = reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text if isinstance(text, bytes) else text.encode())

    def log_message(self, *arguments):
        pass


def chat(text, **headers):
    return 200, headers, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
