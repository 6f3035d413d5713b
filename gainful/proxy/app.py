"""The routes: who asks, for what, and how the answer leaves.

Guarantees: every error is in OpenAI's shape with a fitting status; a reply's row is committed before its last byte is
sent, or the reply says ``failed-open``; nothing of a prompt, a key or a stack trace stands in an error or a log line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from gainful.answers.allowance import Allowance
from gainful.core import ApiError, Busy, Exchange, ModelError
from gainful.dashboard.app import Dashboard
from gainful.proxy import stream as streams
from gainful.proxy.books import Arrival, is_unheard
from gainful.proxy.chat import Chat, Models
from gainful.proxy.desk import Desk
from gainful.proxy.feedback import parse_feedback
from gainful.proxy.replies import EVENTS, refusal, refusal_body, reply, status_of
from gainful.proxy.upstream import Upstream
from gainful.proxy.visit import Visit
from gainful.proxy.wire import Bounds, limits_of, parse
from gainful.store import Feedback, Key, Store
from gainful.tasks.own import owner, shared_name

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPENAPI = Path(__file__).parent / "assets" / "openapi.json"

log = logging.getLogger("gainful.proxy")


class Front:
    """The handlers of one worker."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._bounds = Bounds(body_bytes=desk.settings.most_body_bytes)

    def app(self) -> web.Application:
        """Return the routes, behind the boundary that turns what they raise into replies."""
        app = web.Application(client_max_size=self._bounds.body_bytes, middlewares=[self._boundary])
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/feedback", self.feedback)
        app.router.add_get("/healthz", self.health)
        app.router.add_get("/metrics", self.figures)
        app.router.add_get("/openapi.json", self.openapi)
        self._dashboard().mount(app)
        return app

    def _dashboard(self) -> Dashboard:
        methods = {service.task.name: service.task.serving.methods for service in self.desk.services.values()}
        settings = self.desk.settings

        def shown(store: Store) -> list[str]:
            """Return the tasks to look at: callers' own ones too, where whoever looks is the operator."""
            own = [name for name in store.tasks() if owner(name) and shared_name(name) in methods]
            return [*methods, *own] if not settings.require_keys else list(methods)

        return Dashboard(
            shown,
            self.desk.reading,
            self._caller if settings.require_keys else None,
            methods,
            # a key says who may call, not who may read what others said
            with_text=settings.store_prompts == "full" and not settings.require_keys,
        )

    @web.middleware
    async def _boundary(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Busy as error:
            self.desk.metrics.shed(error.reason)
            return self._refused(error)
        except web.HTTPException as error:
            told = ApiError(f"{request.method} {request.path} is not served here", status=error.status)
            return self._refused(told, error.headers.get("Allow"))
        except (ApiError, ModelError, TimeoutError) as error:
            return self._refused(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours: a status for the caller, its kind for the log
            log.error("request failed", extra={"kind": type(error).__name__})
            return self._refused(error)

    def _refused(self, error: Exception, allow: str | None = None) -> web.Response:
        response = refusal(error)
        if allow is not None:
            response.headers["Allow"] = allow
        self.desk.metrics.refused("", response.status)
        return response

    async def _body(self, request: web.Request) -> bytes:
        """Return the whole body, unpacked."""
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            told = f"the body is longer than {self._bounds.body_bytes} bytes; send less"
            raise ApiError(told, status=413) from None
        except web.RequestPayloadError:
            raise ApiError("the body breaks off or is not packed as its headers say; send it whole") from None

    # --- routes

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer POST /v1/chat/completions."""
        began_s = time.perf_counter()
        key = self._caller(request)
        ask = parse(await self._body(request), self._bounds)
        service = self.desk.services.get(ask.model)
        if service is None:
            offered = ", ".join(sorted(self.desk.services))
            raise ApiError(
                f"there is no model {ask.model!r} here; it serves {offered}",
                status=404,
                code="model_not_found",
                param="model",
            )
        service = await self.desk.own_tasks.service(service, key)
        placed = service.now.place()
        limits = placed.served.limits.tightened(limits_of(request.headers))
        arrival = Arrival(service, placed, ask, key.name if key else "", limits, began_s)
        try:
            return await self._answered(request, arrival, key)
        except (ApiError, Busy, ConnectionError):  # the caller's own doing, or nobody's: no fault of who was to answer
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, its caller, the figures and the log are told
            return self._failed(arrival, error)

    async def _answered(self, request: web.Request, arrival: Arrival, key: Key | None) -> web.StreamResponse:
        response: web.StreamResponse
        service, served = arrival.service, arrival.placed.served
        allowance = Allowance(arrival.limits)
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(allowance.left_s):
                await stack.enter_async_context(self.desk.admission.turn(key))
            span = stack.enter_context(self.desk.spans.request(arrival.ask.model, request.headers))
            upstream = Upstream(service.usual, span)
            stronger = service.stronger and Upstream(service.stronger, span)
            chat = Chat(served, arrival.ask.body, Models(upstream, stronger), allowance, self.desk.may_correct)
            visit = Visit(self.desk, arrival, chat, span)
            if arrival.ask.stream:
                response = await self._streamed(request, visit)
            else:
                await chat.finish()
                response = reply((await visit.keep())[0].body, await visit.headers())
        if arrival.placed.shadow is not None:
            await response.prepare(request)
            await response.write_eof()
            await visit.sent()
        return response

    def _failed(self, arrival: Arrival, error: Exception) -> web.Response:
        """Count, tell and keep that a request ended in *error*; return what its caller is told."""
        task, status = arrival.service.task.name, status_of(error)
        self.desk.metrics.seated(task, arrival.placed.arm, "error")
        self.desk.metrics.refused(task, status)
        if self.desk.may_tell():
            seen = getattr(error, "status", None) or status  # the model server's own, where it said one
            log.warning("no answer", extra={"task": task, "kind": type(error).__name__, "status": seen})
        if arrival.placed.seat is not None:
            asyncio.get_running_loop().call_soon(self.desk.keep_error, arrival, status)
        return refusal(error)

    async def _streamed(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": EVENTS, "Cache-Control": "no-cache"})
        async with contextlib.aclosing(visit.frames()) as frames:
            try:
                async for frame in frames:
                    if not response.prepared:
                        response.headers.update(await visit.early_headers())
                        await response.prepare(request)
                    await response.write(frame)
            except ConnectionError:  # the caller has gone
                raise
            except Exception as error:  # what has begun must end as a stream, whatever broke
                if not response.prepared:
                    raise
                self._failed(visit.arrival, error)
                told = streams.frame(msgspec.json.encode(refusal_body(error)))
                await response.write(told + streams.DONE)
                return response
        said = await visit.headers()
        await response.write(b"".join(streams.comment(*header) for header in said.items()) + streams.DONE)
        return response

    async def models(self, request: web.Request) -> web.Response:
        """Answer GET /v1/models: the tasks."""
        self._caller(request)
        served = [{"id": name, "object": "model", "created": 0, "owned_by": "gainful"} for name in self.desk.services]
        return reply({"object": "list", "data": served}, {})

    async def feedback(self, request: web.Request) -> web.Response:
        """Answer POST /v1/feedback: what the caller says of a reply, by its id."""
        key = self._caller(request)
        told = parse_feedback(await self._body(request), key.name if key else "", time.time())
        await asyncio.to_thread(self._put_feedback, told, key)
        return reply({"object": "feedback", "id": told.reply}, {})

    def _put_feedback(self, told: Feedback, key: Key | None) -> None:
        with self.desk.opened() as store:
            found = store.exchange(told.reply)
            keeping = self.desk.keeping.get(f"gainful/{shared_name(found.task)}") if found else None
            if found is None or keeping is None or is_unheard(found) or not self._may_judge(key, found):
                raise ApiError(f"there is no reply {told.reply!r}; give the id of a reply of this server", status=404)
            comment, target = keeping.kept_text(told.comment), keeping.kept_value(told.target)
            store.put_feedback(msgspec.structs.replace(told, comment=comment, target=target))

    def _may_judge(self, key: Key | None, reply: Exchange) -> bool:
        """Whether *reply* is the caller's, or no key is asked for and neither of the two has tasks of its own."""
        is_apart = bool(owner(reply.task)) or (key is not None and key.own_task)
        return reply.key == (key.name if key else "") or not (self.desk.settings.require_keys or is_apart)

    async def health(self, _: web.Request) -> web.Response:
        """Answer GET /healthz: 200 while this worker answers; ``unstored`` replies did not reach the disk in time."""
        return reply({"status": "ok", "unstored": self.desk.recorder.failed}, {})

    async def figures(self, request: web.Request) -> web.Response:
        """Answer GET /metrics in Prometheus' text format."""
        self._caller(request)
        return web.Response(body=self.desk.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: web.Request) -> web.Response:
        """Answer GET /openapi.json: this interface, as OpenAPI 3.1, with the models that are served here."""
        document = msgspec.json.decode(OPENAPI.read_bytes())
        document["components"]["schemas"]["ChatRequest"]["properties"]["model"]["enum"] = list(self.desk.services)
        return reply(document, {})

    def _caller(self, request: web.Request) -> Key | None:
        """Return the caller's key, ``None`` where none is needed and none is known."""
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        key = self.desk.keyring.find(secret.strip()) if scheme.lower() == "bearer" else None
        if key is None and self.desk.settings.require_keys:
            raise ApiError(
                "this server needs a key and was given none that it knows; send one as a bearer token",
                status=401,
                code="invalid_api_key",
            )
        return key
