"""A recommendation letter: the roles of a chat, and transforms inside placeholders.

`{{role:system}}` and its kin switch who speaks. `{{input:strengths | strip}}` trims a value before the model reads
it; `{{input:letter | truncate(120)}}` passes on no more than its first 120 tokens. All three steps travel to the
service together and run there one after the other.
"""

import Parrot as P

NOTES = """Mina Okafor worked with us for two years. She rebuilt the nightly import, which used to fail every week
and has not failed since. She taught two interns to write tests. She says so when a plan will not work,
early and kindly, and brings a better one."""


@P.SemanticFunction(max_tokens=60)
def find_strengths(notes: P.SemanticVariable):
    """{{role:system}}You read notes about colleagues and answer with facts only.
    {{role:user}}List the three greatest strengths of this person.

    {{input:notes}}
    {{role:assistant}}{{output:strengths}}
    """


@P.SemanticFunction(max_tokens=160)
def write_letter(name: P.SemanticVariable, strengths: P.SemanticVariable):
    """{{role:system}}You write warm and precise letters of recommendation.
    {{role:user}}Write a short letter of recommendation for {{input:name}}, whose strengths are these:

    {{input:strengths | strip}}
    {{role:assistant}}{{output:letter}}
    """


@P.SemanticFunction(max_tokens=20)
def write_subject(name: P.SemanticVariable, letter: P.SemanticVariable):
    """Write the subject line of an e-mail about {{input:name}} with this letter of recommendation:

    {{input:letter | truncate(120)}}

    {{output:subject}}
    """


def recommend() -> tuple[str, str]:
    name = P.SemanticVariable("Mina Okafor")
    letter = write_letter(name, find_strengths(NOTES))
    return write_subject(name, letter).get(), letter.get()


if __name__ == "__main__":
    print("Subject: {}\n\n{}".format(*recommend()))
