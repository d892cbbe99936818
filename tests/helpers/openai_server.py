"""`vllm serve FOLDER ... --host H --port N`, played by a small network that answers OpenAI's protocol.

The network is that of tests.conftest: the question is eight numbers, the answer the class with the largest logit. It
listens some time after it has started, as a server does that loads weights, and knows no path but the two it is asked.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Handler(BaseHTTPRequestHandler):
    """One request."""

    weights: dict[str, NDArray[Any]]

    def do_GET(self) -> None:
        """Whether it is ready."""
        self._answer(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        """A completion."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions" or asked["model"] != "soup" or asked["temperature"] != 0:
            self._answer(404, {"error": "no such model"})
            return
        hidden = np.maximum(self.weights["0.weight"] @ self._inputs(asked["prompt"]) + self.weights["0.bias"], 0)
        logits = self.weights["2.weight"] @ hidden + self.weights["2.bias"]
        self._answer(200, {"choices": [{"index": 0, "text": f" class-{int(logits.argmax())} or so"}]})

    def _inputs(self, prompt: str) -> NDArray[Any]:
        return np.array([float(word) for word in prompt.split()], dtype=np.float32)

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base class's name
        """Nothing."""


def main(words: list[str]) -> None:
    """Serves until it is ended."""
    assert words[0] == "serve"
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    if flags["--served-model-name"] != "soup":
        raise SystemExit("unknown model")
    Handler.weights = load_file(f"{words[1]}/model.safetensors")
    time.sleep(0.1)
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer((flags["--host"], int(flags["--port"])), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
