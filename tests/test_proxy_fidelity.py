"""Every shape of the corpus passes the proxy unchanged, both ways, in each streaming mode."""

from pathlib import Path

import msgspec
import pytest
from fidelity import RecordingUpstream, findings
from fidelity_corpus import SHAPES
from serving import QUIET, serving
from test_proxy_chat import talk

from gainful.models import OpenAIModel
from gainful.models.patience import Patience
from gainful.tasks.serving import Streaming

pytestmark = pytest.mark.slow  # 90 shapes, six ways

REWRITTEN = {"log-probabilities", "numbers of every form"}  # 1e-07 becomes 1e-7: the number survives, its spelling not
ROUNDED = {"more digits than a double has"}
REFUSED = {"a number beyond a double"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("mode", ["pass", "hold", "segment"])
async def test_requests_and_replies_pass_unchanged(tmp_path: Path, mode: Streaming, streamed: bool) -> None:
    settings = msgspec.structs.replace(QUIET, stream=mode)
    async with RecordingUpstream() as upstream:
        model = OpenAIModel("m", upstream.base_url, "k", patience=Patience(attempts=1, timeout_s=10))
        async with serving(talk(), model, tmp_path / "serve.db", settings) as proxy:
            url = f"{proxy.url}/v1"
            found = await findings(upstream, url, proxy.model, SHAPES, streamed=streamed)
        await model.close()

    assert {finding.shape for finding in found if not finding.is_lossless} <= ROUNDED | REFUSED
    assert {finding.shape for finding in found if not finding.is_faithful} <= ROUNDED | REFUSED | REWRITTEN
