"""The command line in a folder of one's own, with a real server that answers as the scripted world does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web
from worlds import needs_a_schema

TESTS = Path(__file__).parent


@contextmanager
def serving(pause_s: float = 0.0) -> Iterator[str]:
    """Serve chat completions on this machine, each after *pause_s*; yields the base URL."""

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(pause_s)
        message = {"role": "assistant", "content": needs_a_schema(body, 0)}
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "choices": [choice], "usage": usage})

    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/v1"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(runner.cleanup())
    loop.close()


class Shell:
    """A folder of one's own, with a task in it and no configuration but the server's address."""

    def __init__(self, folder: Path, base_url: str):
        self.folder = folder
        (folder / "tasks.py").write_text("from worlds import sums\ntask = sums()\ntiny = sums(cases=12)\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "sk-test",
            "COLUMNS": "100",
        }

    def gainful(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gainful.cli", *words]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def json(self, *words: str) -> dict[str, object]:
        ran = self.gainful(*words, "--json")
        assert ran.returncode == 0, ran.stderr
        found: dict[str, object] = json.loads(ran.stdout)
        return found

    def interrupted(self, shown: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command and press Ctrl-C once it has printed *shown*."""
        command = [sys.executable, "-u", "-m", "gainful.cli", *words]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True
        ) as it:
            assert it.stdout is not None
            told = next((line for line in it.stdout if shown in line), "")
            it.send_signal(signal.SIGINT)
            out, err = it.communicate(timeout=60)
        return subprocess.CompletedProcess(command, it.returncode, told + out, err)
