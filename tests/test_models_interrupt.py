"""Ctrl-C while the real model is answering."""

import subprocess
import sys

import pytest

from gainful.models import SMOLLM2, wheel_file


@pytest.mark.slow
def test_ctrl_c_ends_the_process_at_once_and_quietly() -> None:
    """Eight endless answers under way, nothing closed: the interpreter still ends, and with its own status."""
    code = f"""
import asyncio, os, signal
from gainful.models import EmbeddedModel
model = EmbeddedModel({str(wheel_file(**SMOLLM2))!r})
body = {{"messages": [{{"role": "user", "content": "hi"}}], "max_tokens": 1900, "ignore_eos": True}}
async def main():
    await model.complete({{**body, "max_tokens": 1}})
    asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.gather(*(model.complete(body) for _ in range(8)))
    finally:
        await model.close()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    raise SystemExit(3)
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)

    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "", "")


@pytest.mark.slow
def test_closing_beside_calls_that_nobody_cancelled_ends() -> None:
    """Sixteen calls, half of them waiting for a slot: the engine must not be freed while one of them begins."""
    code = f"""
import asyncio
from gainful.models import EmbeddedModel
model = EmbeddedModel({str(wheel_file(**SMOLLM2))!r})
body = {{"messages": [{{"role": "user", "content": "hi"}}], "max_tokens": 1900, "ignore_eos": True}}
async def main():
    await model.complete({{**body, "max_tokens": 1}})
    calls = [asyncio.create_task(model.complete(body)) for _ in range(16)]
    await asyncio.sleep(0.5)
    await model.close()
    assert all(call.cancelled() for call in calls)
asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
