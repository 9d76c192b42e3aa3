"""A committee: members vote, the service counts, and a letter tells the verdict; all of it in one exchange.

`@P.NativeFunction(server=True)` is a function that the service runs itself, in a sandbox: nothing comes back to this
process between the votes and the letter. `{{input:vote | json("reason")}}` passes on one part of a JSON value.
"""

import Parrot as P

MEMBERS = ("a treasurer who watches every penny", "a gardener", "a teacher")

VOTE = {
    "type": "object",
    "properties": {"vote": {"enum": ["yes", "no"]}, "reason": {"type": "string", "maxLength": 60}},
    "required": ["vote", "reason"],
    "additionalProperties": False,
}


@P.SemanticFunction(max_tokens=128, schema=VOTE)
def cast_vote(member: P.SemanticVariable, proposal: P.SemanticVariable):
    """You are {{input:member}} on a committee. The proposal is: {{input:proposal}}
    Vote, and give a short reason, as JSON.
    {{output:vote}}
    """


@P.NativeFunction(server=True)
def count_votes(votes: list[str]) -> str:
    yes = len([vote for vote in votes if '"yes"' in vote])
    return "accepted" if 2 * yes > len(votes) else "declined"


@P.SemanticFunction(max_tokens=60)
def write_letter(proposal: P.SemanticVariable, verdict: P.SemanticVariable, vote: P.SemanticVariable):
    """Write two sentences to somebody whose proposal was {{input:verdict}}.
    The proposal: {{input:proposal}}
    What one member said: {{input:vote | json("reason")}}
    {{output:letter}}
    """


def decide() -> tuple[str, str]:
    proposal = P.SemanticVariable("Plant a cherry tree behind the library.")
    votes = [cast_vote(member, proposal) for member in MEMBERS]
    verdict = count_votes(votes)
    return verdict.get(), write_letter(proposal, verdict, votes[0]).get()


if __name__ == "__main__":
    print("The proposal is {}.\n\n{}".format(*decide()))
