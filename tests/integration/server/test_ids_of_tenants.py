"""Each tenant has all ids to itself: nothing that one does shows what another has called something."""

import asyncio
import re
from typing import Any

import httpx
from tenants_here import IDS, key_of, routes

from parrotserve.tenancy.limits import Limits

SANDBOX = {
    "source": "def shout(text):\n    return text.upper()",
    "name": "shout",
    "arguments": {"text": {"kind": "variable", "variable": "tale"}},
}
SESSION = f"/v1/sessions/{IDS['session']}"
TALE = f"{SESSION}/variables/tale"


def program(word: str) -> dict[str, Any]:
    def telling(number: int, *segments: dict[str, Any], output: str) -> dict[str, Any]:
        return {
            "id": f"telling-{number}",
            "function": "Tell",
            "segments": [*segments, {"kind": "output", "variable": output, "sampling": {"max_tokens": 40}}],
        }

    return {
        "session": IDS["session"],
        "variables": [
            {"id": "subject", "name": "subject", "value": word},
            *({"id": one} for one in ("tale", "sequel", "loud", "late", "never", "native")),
        ],
        "requests": [
            telling(1, {"kind": "input", "variable": "subject"}, output="tale"),
            telling(2, {"kind": "input", "variable": "native"}, output="sequel"),
            telling(3, {"kind": "input", "variable": "late"}, output="never"),
        ],
        "calls": [
            {"id": "a-call", "function": "ask", "inputs": ["tale"], "output": "native"},
            {"id": "b-call", "function": "shout", "inputs": ["tale"], "output": "loud", "sandbox": SANDBOX},
        ],
    }


class Teller:
    """A tenant's client that does all that can be done, and remembers what it was answered."""

    def __init__(self, client: httpx.AsyncClient, headers: dict[str, str], word: str) -> None:
        self._client, self._headers, self._word = client, headers, word
        self.told: list[str] = []
        self.asked: set[tuple[str, str]] = set()
        self._offers: asyncio.Future[httpx.Response] | None = None

    async def ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        self.asked.add((method, path.partition("?")[0]))
        answer = await self._client.request(method, path, **sent | {"headers": self._headers | sent.get("headers", {})})
        kept = {name: answer.headers.get(name) for name in ("content-type", "retry-after", "www-authenticate")}
        self.told.append(f"{method} {path} {answer.status_code} {kept} {_timeless(answer.text)}")
        return answer

    async def tell(self) -> None:
        """Before anything is there, all of a program's life up to values, failures, retries, and OpenAI's API."""
        declared = program(self._word)
        for method, path in routes(self._client):
            if IDS["session"] in path:
                await self.ask(method, path, json={"value": "early"} if method == "PUT" else None)
            elif path not in ("/v1/submit", "/v1/chat/completions", "/v1/completions", "/v1/responses"):
                await self.ask(method, path)
        await self.ask("POST", "/v1/submit", json={"session": IDS["session"], "wait": [{"variable": "tale"}]})
        waits = [{"variable": "tale", "stream": True}, {"variable": "loud"}, {"variable": "never", "timeout": 0}]
        await self.ask("POST", "/v1/submit", json=declared | {"wait": waits})
        self._offers = asyncio.ensure_future(self._client.get(f"{SESSION}/calls", headers=self._headers))
        await self.ask("POST", "/v1/submit", json=declared | {"wait": [{"variable": "tale"}]})
        await self.ask("PUT", f"{SESSION}/calls/a-call", json={"value": f"{self._word} said"})
        await self.ask("PUT", f"{SESSION}/calls/b-call", json={"value": "not mine to say"})
        await self.ask("GET", f"{SESSION}/variables/sequel")
        await self.ask("GET", f"{TALE}/stream?offset=3")
        await self.ask("PUT", TALE, json={"value": "something else"})
        await self.ask("DELETE", f"{SESSION}/variables/never")
        await self.ask("GET", f"{SESSION}/variables/never")
        await self.ask("POST", f"{SESSION}/variables/never/retry")
        await self.ask("PUT", f"{SESSION}/variables/late", json={"value": f"{self._word} at last"})
        await self.ask("GET", f"{SESSION}/variables/never")
        await self._be_refused(declared)
        await self._talk()
        await self._settled()
        await self.ask("GET", SESSION)
        await self.ask("GET", f"{SESSION}/explain")
        await self.ask("GET", "/v1/usage")

    async def end(self) -> None:
        """What native calls there were is told with the session's end."""
        assert self._offers is not None
        await self.ask("DELETE", SESSION)
        self.told.append((await self._offers).text)
        await self.ask("GET", SESSION)

    async def _be_refused(self, declared: dict[str, Any]) -> None:
        for taken in (
            {"variables": [{"id": "subject", "value": "another"}]},
            {"requests": [{**declared["requests"][0], "function": "Other"}]},
            {"calls": [{**declared["calls"][0], "function": "other"}]},
            {"requests": [{**declared["requests"][0], "id": "telling-4"}]},
            {"requests": [{**declared["requests"][0], "id": "telling-5", "segments": []}]},
            {"calls": [{**declared["calls"][0], "id": "c-call", "timeout": -1}]},
            {"wait": [{"variable": "nowhere"}]},
        ):
            await self.ask("POST", "/v1/submit", json={"session": IDS["session"], **taken})
        other = {"session": f"{IDS['session']}-2"}
        await self.ask("POST", "/v1/submit", json=other | {"wait": [{"variable": "tale"}]})
        await self.ask("POST", "/v1/submit", json=other | {"wait": [{"variable": "subject"}]})

    async def _talk(self) -> None:
        """By OpenAI's API, with the same session, names and Idempotency-Key."""
        for path, said in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": f"Hello {self._word}"}]}),
            ("/v1/completions", {"prompt": f"Hello {self._word}"}),
        ):
            body = {**said, "max_tokens": 40, "seed": 1}
            extension = {"session": "talk", "output": "chat" if "messages" in said else "text"}
            await self.ask("POST", path, json={**body, "parrot": extension})
            await self.ask("POST", path, json={**body, "parrot": extension})
            got = {"parrot": {"session": "talk", "get": extension["output"]}}
            got |= {"messages": []} if "messages" in said else {}
            for streamed in (False, True):
                await self.ask("POST", path, json={**got, "stream": streamed})
            await self.ask("POST", path, json=body, headers={"Idempotency-Key": path})
            await self.ask("POST", path, json={**body, "seed": 2}, headers={"Idempotency-Key": path})
        await self._respond()

    async def _respond(self) -> None:
        """By responses, with the same Idempotency-Key."""
        path, key = "/v1/responses", {"Idempotency-Key": "respond"}
        for body in ({"input": f"Hello {self._word}"}, {"input": f"Hello {self._word}"}, {"input": "Bye"}):
            await self.ask("POST", path, json={**body, "seed": 1, "max_output_tokens": 40}, headers=key)

    async def _settled(self) -> None:
        while True:
            view = (await self._client.get(SESSION, headers=self._headers)).json()
            if all(request["state"] == "done" for request in view["requests"]):
                return


def _timeless(text: str) -> str:
    """Without names of tenants, ids that are made at random, times, and what the scheduler has learned to expect."""
    text = re.sub(r'"tenant":"\w+"', "TENANT", text)
    text = re.sub(r"(\b|_)[ci]-[0-9a-f]{16,32}\b", "ID", text)
    text = re.sub(r"chatcmpl-\w+|cmpl-\w+", "ID", text)
    text = re.sub(r'("created(_at)?": ?)\d+', r"\1#", text)
    text = re.sub(r'("placement":{"by":"\w+").*?"others":\[\]}', r"\1}", text)
    return re.sub(r"\d+\.\d+(e-?\d+)?", "#", text)


def echo(prompt: str) -> str:
    return f"about {prompt} and so on"


async def test_answers_are_the_same_whether_another_tenant_has_the_same_or_nothing(store, directory, served):
    store.create_tenant("eve", Limits())
    alone = Teller(await served(directory=directory, script=echo), key_of(store, "eve"), "a kangaroo")
    await alone.tell()
    await alone.end()
    client = await served(directory=directory, script=echo)
    assert set(routes(client)) <= alone.asked
    ann, bob = (Teller(client, key_of(store, name), "a kangaroo") for name in ("ann", "bob"))
    for teller in (ann, bob):
        await teller.tell()
    for teller in (bob, ann):  # what is the other's is all there when one tells, and when one ends
        await teller.end()
        assert teller.told == alone.told


async def test_tenants_use_the_same_ids_at_once(store, directory, served):
    client = await served(directory=directory, script=echo)
    animals = {"ann": "an emu", "bob": "a wombat", "eve": "a quokka"}
    store.create_tenant("eve", Limits())
    tellers = [Teller(client, key_of(store, name), animal) for name, animal in animals.items()]
    await asyncio.gather(*(teller.tell() for teller in tellers))
    values = []
    for name, teller, animal in zip(animals, tellers, animals.values(), strict=True):
        view = (await teller.ask("GET", SESSION)).json()
        values.append({one["id"]: one["value"] for one in view["variables"]})
        (used,) = (await teller.ask("GET", "/v1/usage")).json()
        assert used["tenant"] == name
        talked = [told for told in teller.told if "/completions 200" in told]
        assert len(talked) == 10
        assert all(animal in told for told in talked)
        await teller.end()
        assert not any(other in "".join(teller.told) for other in animals.values() if other != animal)
    operator = key_of(store, "ann", operator=True)
    metrics = (await client.get("/metrics", headers=operator)).text
    for name in animals:
        assert f'parrot_tokens_total{{kind="output",tenant="{name}"}}' in metrics
        assert f"{name}/" not in metrics
    for found, animal in zip(values, animals.values(), strict=True):
        assert found == {
            "subject": animal,
            "tale": f"about {animal} and so on",
            "loud": f"ABOUT {animal.upper()} AND SO ON",
            "native": f"{animal} said",
            "sequel": f"about {animal} said and so on",
            "late": f"{animal} at last",
            "never": f"about {animal} at last and so on",
        }
