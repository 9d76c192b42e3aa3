"""A program of four dependent requests, written with OpenAI's own client and nothing of Parrot's.

    pip install openai
    parrot serve                                                          # in one terminal
    python examples/openai_client/announce_play.py http://127.0.0.1:8000  # in another

All requests are declared before the first has been answered. They name what they write (`output`) and what they read
(`inputs`), so the service knows the graph: the review and the poster start on the server as soon as the synopsis is
complete, side by side, without a round trip to this program, and neither is queued behind somebody else's work.
"""

import sys
import uuid

from openai import OpenAI


def announce_play(url: str) -> str:
    """The text of a post about a play that nobody has written yet."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    model = client.models.list().data[0].id
    session = f"announce-{uuid.uuid4().hex[:12]}"

    def declare(output: str, prompt: str, **inputs: str) -> None:
        """Returns at once; `inputs` are outputs that were declared before, by the names that the prompt has."""
        parrot = {"session": session, "output": output, "inputs": inputs, "wait": False, "criteria": "latency"}
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=80,
            temperature=0,
            extra_body={"parrot": parrot},
        )

    declare("synopsis", "You are a playwright. Write a short synopsis of a play about a lighthouse.")
    declare("review", "You are a critic. Review this play: {{input:synopsis | strip}}", synopsis="synopsis")
    declare("poster", "Write one line for the poster of this play: {{input:synopsis | strip}}", synopsis="synopsis")
    declare(
        "post",
        "Write a post that announces a play.\nIts poster: {{input:poster}}\nA review: {{input:review}}",
        poster="poster",
        review="review",
    )
    answer = client.chat.completions.create(
        model=model, messages=[], extra_body={"parrot": {"session": session, "get": "post"}}
    )
    client.delete(f"{url}/v1/sessions/{session}", cast_to=type(None))
    return answer.choices[0].message.content or ""


if __name__ == "__main__":
    print(announce_play(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
