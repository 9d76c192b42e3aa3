"""Every example does what its docstring says: which prompts it makes, and what flows from one to the next."""

import heapq
import inspect
import json
from collections.abc import Callable
from types import ModuleType

import pytest
from example_model import EXAMPLES, Model

from parrotserve.cli.program import choose
from parrotserve.sdk.function import SemanticFunction

Example = Callable[[str], ModuleType]
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_what_it_shows_and_has_one_function_to_run(name: str, example: Example):
    module = example(name)
    assert name == "write_snake_game" or module.__doc__
    assert inspect.isfunction(choose(module, EXAMPLES / f"{name}.py", None))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_bounded_so_that_a_small_model_on_a_cpu_finishes_soon(name: str, example: Example):
    functions = [value for value in vars(example(name)).values() if isinstance(value, SemanticFunction)]
    assert all(each.max_tokens <= 256 for function in functions for each in function.samplings.values())


def test_hello_greets_by_name(example: Example, model: Model):
    model.answers = {"greets Ada": "Welcome, Ada!"}
    assert example("hello").hello() == "Welcome, Ada!"


def test_write_snake_game_tests_the_code_that_was_written(example: Example, model: Model):
    model.answers = {"QA engineer": "assert snake", "expert software engineer": "snake = 1"}
    assert example("write_snake_game").WriteSnakeGame() == ("snake = 1", "assert snake")
    code, test = model.prompts
    assert "Write python code of a snake game." in code
    assert "Code: snake = 1." in test


def test_joke_explains_the_joke_it_told_in_the_same_sequence(example: Example, model: Model):
    model.answers = {"Explain": "Because it talks.", "Tell me": "Polly wants a merge."}
    assert example("joke").joke_with_explanation() == ("Polly wants a merge.", "Because it talks.")
    joke, explanation = model.prompts
    assert explanation.startswith(f"{joke}Polly wants a merge.")


def test_chatbot_reads_the_conversation_so_far_at_every_turn(example: Example, model: Model, capsys):
    module = example("chatbot")
    model.answers = {message: f"Reply {number}." for number, message in reversed(list(enumerate(module.MESSAGES)))}
    pieces: list[str] = []
    replies = module.chatbot(show=pieces.append)
    assert replies == ["Reply 0.", "Reply 1.", "Reply 2."]
    assert "".join(pieces) == "Reply 0.\nReply 1.\nReply 2.\n"
    for before, reply, after in zip(model.prompts, replies, model.prompts[1:], strict=False):
        assert after.startswith(before + reply)
    assert capsys.readouterr().out == "".join(f"> {message}\n" for message in module.MESSAGES)


def test_question_answering_reads_the_documentation_that_was_looked_up(example: Example, model: Model):
    model.answers = {"keywords": "strip, ends", "using only the documentation": "Call strip()."}
    assert example("question_answering").answer_question() == "Call strip()."
    assert "str.strip: Return a copy of the string" in model.prompts[-1]


def test_question_answering_looks_up_what_is_asked_for(example: Example):
    look_up = example("question_answering").look_up.function
    assert look_up("How do I center a text?", "center, width").startswith("str.center:")
    assert look_up("How do I join parts?", "join, separator").startswith("str.join:")


def test_the_letter_is_written_from_the_strengths_and_its_subject_from_the_letter(example: Example, model: Model):
    module = example("recommendation_letter")
    model.answers = {
        "e-mail": "On Mina",
        "letter of recommendation for": "A fine letter. " * 10,
        "three greatest": "  patient  ",
    }
    subject, letter = module.recommend()
    assert subject == "On Mina"
    assert letter == "A fine letter. " * 10
    (written,) = model.asked("whose strengths are these")
    assert "these:\n\npatient" in written
    assert "She rebuilt the nightly import" not in written
    (titled,) = model.asked("e-mail")
    assert ("A fine letter. " * 10)[:100] in titled
    assert "A fine letter. " * 10 not in titled  # cut to 120 tokens


def test_the_committee_is_counted_by_the_service_and_its_letter_reads_one_reason(example: Example, model: Model):
    module = example("committee")
    votes = {"treasurer": ("no", "Too dear."), "gardener": ("yes", "Cherries!"), "teacher": ("yes", "Shade.")}
    model.answers = {
        "Write two sentences": "Good news.",
        **{member: json.dumps({"vote": vote, "reason": reason}) for member, (vote, reason) in votes.items()},
    }
    assert module.decide() == ("accepted", "Good news.")
    (letter,) = model.asked("Write two sentences")
    assert "whose proposal was accepted" in letter
    assert "What one member said: Too dear." in letter
    assert "yes" not in letter


def test_a_committee_without_a_majority_declines(example: Example):
    count = example("committee").count_votes.function
    assert [count(['{"vote": "yes"}'] * n + ['{"vote": "no"}'] * 2) for n in range(4)] == ["declined"] * 3 + [
        "accepted"
    ]


def test_playwright_workflow_passes_each_step_on(example: Example, model: Model):
    model.answers = {"posts": "Come!", "critic": "Moving.", "playwright": "A keeper stays."}
    assert example("playwright_workflow").announce_play() == "Come!"
    synopsis, review, post = model.prompts
    assert "The Last Lighthouse Keeper" in synopsis
    assert "A keeper stays." in review
    assert "A keeper stays." in post
    assert "Moving." in post


def test_chain_summary_refines_one_summary_with_every_piece(example: Example, model: Model):
    model.answers = {"piece by piece": lambda _: f"summary {len(model.prompts)}"}
    module = example("chain_summary")
    assert module.summarise_chain() == f"summary {len(model.prompts)}"
    assert len(model.prompts) >= 4
    for number, prompt in enumerate(model.prompts):
        assert (f"summary {number}\n" if number else "(nothing read yet)") in prompt
    pieces = [prompt.split("Next piece: ")[1].split("\n")[0] for prompt in model.prompts]
    assert " ".join(pieces) in " ".join(heapq.__about__.split())


def test_map_reduce_summary_combines_all_summaries_in_order(example: Example, model: Model):
    module = example("map_reduce_summary")
    cues = {f"\n{each.__name__}: ": f"{each.__name__} helps." for each in module.MODULES}
    model.answers = {"Here are short summaries": "Together.", **cues}
    assert module.summarise_modules() == "Together."
    *maps, reduction = model.prompts
    assert len(maps) == len(module.MODULES)
    assert "\n\n".join(cues.values()) in reduction


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_the_game_team_plans_writes_reviews_and_revises(rounds: int, example: Example, model: Model):
    module = example("game_team")
    model.answers = {
        "architect": "the plan",
        "revise": lambda prompt: prompt.split("version of ")[1].split(". Answer")[0] + "+",
        "review the code": "needs work",
        "Write the file": lambda prompt: prompt.split("Write the file ")[1].split(". Answer")[0],
    }
    files = module.develop("a maze", rounds)
    assert files == {file: file + "+" * min(rounds, 1) for file in module.FILES}
    assert len(model.asked("You are a programmer")) == len(module.FILES)
    assert all("the plan" in prompt for prompt in model.asked("You are a programmer"))
    assert len(model.asked("two most important faults")) == rounds
    assert all("\n\n".join(module.FILES) in prompt for prompt in model.asked("most important faults")[:1])
    revisions = model.asked("Comments of the reviewer: needs work")
    assert len(revisions) == rounds * len(module.FILES)


class TestSupportDesk:
    """The example that branches."""

    @pytest.fixture
    def replies(self, example: Example, model: Model) -> Callable[[str, str], list[str]]:
        def run(first: str, second: str) -> list[str]:
            kinds = iter((first, second))
            model.answers = {
                "Is this message": lambda _: json.dumps(next(kinds)),
                "refund or a replacement": '"replacement"',
                "apologise": "Sorry.",
                "You work for a shop": "Gladly.",
            }
            return example("support_desk").answer_messages()

        return run

    def test_a_complaint_gets_a_remedy_and_an_apology(self, replies, model: Model):
        assert replies("complaint", "question") == ["Sorry.", "Gladly."]
        assert len(model.asked("refund or a replacement?")) == 1
        assert len(model.asked("promise a replacement")) == 1
        assert len(model.asked("to this question")) == 1

    def test_without_complaints_no_remedy_is_chosen(self, replies, model: Model):
        assert replies("praise", "question") == ["Gladly.", "Gladly."]
        assert model.asked("refund or a replacement?") == []
        assert len(model.asked("to this praise")) == 1
